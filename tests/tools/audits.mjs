// Runs the audits of graphql-http against a server, and prints what they came to as JSON.
//
//   node audits.mjs PACKAGE URL TOKEN
import { createRequire } from 'node:module';

const [place, url, token] = process.argv.slice(2);
const { serverAudits } = createRequire(import.meta.url)(place);

const signed = (address, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set('authorization', `Bearer ${token}`);
  return fetch(address, { ...init, headers });
};

const results = [];
for (const audit of serverAudits({ url, fetchFn: signed })) {
  const { id, name } = audit;
  try {
    const result = await audit.fn();
    results.push({ id, name, status: result.status, reason: result.reason ?? null });
  } catch (error) {
    results.push({ id, name, status: 'broken', reason: String(error) });
  }
}
process.stdout.write(JSON.stringify(results));
