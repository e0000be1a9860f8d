// Brotli twins of the built files, and the checksum of what they were built from.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
/** What the build reads. Tests and notes are not among it. */
const SOURCES = [
  "codegen.ts",
  "graphiql",
  "index.html",
  "package-lock.json",
  "package.json",
  "public",
  "src",
  "svelte.config.js",
  "tools",
  "tsconfig.json",
  "vite.config.ts",
];
/** These are compressed already. */
const DENSE = /\.(br|woff2)$/;

function files(path) {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path)).flatMap((name) => files(`${path}/${name}`));
}

for (const name of readdirSync(dist)) {
  if (DENSE.test(name)) continue;
  const bytes = readFileSync(join(dist, name));
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  writeFileSync(join(dist, `${name}.br`), brotliCompressSync(bytes, { params }));
}

// As tests/ui.rs computes it: for each file in order, its path, its length and its bytes.
const hash = createHash("sha256");
for (const path of [...SOURCES.flatMap(files), ...files("dist")].sort((a, b) => (a < b ? -1 : 1))) {
  const bytes = readFileSync(join(root, path));
  hash.update(`${path}\0${bytes.length}\0`).update(bytes);
}
writeFileSync(join(root, "dist.sha256"), `${hash.digest("hex")}\n`);
