// How fast the list of images is with 100,000 of them, measured in the page: make ui-bench.
//
// A registry in memory answers for so many tags, wharf reads them as it reads any, and a browser types and turns pages.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { Lab, until } from "../tests/support.js";

const REPOSITORIES = 1_000;
const TAGS = 100;
/** So many different contents; the tags share them, or reading them all would be most of the work. */
const CONTENTS = 500;
const WORDS = ["tensor", "cuda11.3", "python-0421", "2.42-py39", "flow-09 2.7-"];
/** A scan of so much takes minutes on a busy machine. */
const PATIENCE = 900_000;
/** The goal: from the answer to the painted rows. */
const MOST_REPAINT = 100;

const sha = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const TYPE = "application/vnd.docker.distribution.manifest.v2+json";

function contents() {
  const blobs = new Map();
  const manifests = [];
  for (let place = 0; place < CONTENTS; place += 1) {
    const config = JSON.stringify({
      architecture: "amd64",
      os: "linux",
      created: "2026-01-01T00:00:00Z",
      config: { Labels: { "ai.backend.kernelspec": "1", "ai.backend.accelerators": "cuda", number: String(place) } },
      rootfs: { type: "layers", diff_ids: [] },
    });
    blobs.set(sha(config), config);
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: TYPE,
      config: {
        mediaType: "application/vnd.docker.container.image.v1+json",
        digest: sha(config),
        size: Buffer.byteLength(config),
      },
      layers: [
        {
          mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
          digest: sha(`layer ${place}`),
          size: 4_000_000_000 + place * 1_000_000,
        },
      ],
    });
    manifests.push({ body: manifest, digest: sha(manifest) });
  }
  return { blobs, manifests };
}

const nameOf = (number) =>
  `stable/python-${String(number).padStart(4, "0")}-tensorflow-${String(number % 100).padStart(2, "0")}`;

function registry() {
  const { blobs, manifests } = contents();
  const repositories = Array.from({ length: REPOSITORIES }, (_, number) => nameOf(number));
  const tags = Array.from({ length: TAGS }, (_, number) => `2.${number}-py39-ubuntu20.04-cuda11.3`);
  const byDigest = new Map(manifests.map((one) => [one.digest, one]));
  return createServer((request, response) => {
    const path = new URL(request.url, "http://registry").pathname;
    const json = (body, headers = {}) => {
      response.writeHead(200, { "Content-Type": "application/json", ...headers });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    if (path === "/v2/") return json("{}");
    if (path === "/v2/_catalog") return json(JSON.stringify({ repositories }));
    const [, name, what, which] = /^\/v2\/(.+)\/(tags|manifests|blobs)\/(.+)$/.exec(path) ?? [];
    if (what === "tags") return json(JSON.stringify({ name, tags }));
    if (what === "blobs" && blobs.has(which)) return json(blobs.get(which), { "Docker-Content-Digest": which });
    const found =
      byDigest.get(which) ?? manifests[(repositories.indexOf(name) * 7 + tags.indexOf(which)) % manifests.length];
    return json(found.body, {
      "Content-Type": TYPE,
      "Docker-Content-Digest": found.digest,
      ETag: `"${found.digest}"`,
      "Content-Length": Buffer.byteLength(found.body),
    });
  });
}

/** In the page: when an answer for the table was there, and when what came of it was painted. */
function watch() {
  window.speed = [];
  const fetched = window.fetch;
  window.fetch = async (path, options) => {
    const isTable = String(options?.body ?? "").includes("query Images(");
    const asked = performance.now();
    const answer = await fetched(path, options);
    if (!isTable) return answer;
    const read = answer.json.bind(answer);
    answer.json = async () => {
      const body = await read();
      const answered = performance.now();
      const { port1, port2 } = new MessageChannel();
      const painted = () => {
        window.speed.push({ answer: answered - asked, repaint: performance.now() - answered });
      };
      port1.onmessage = painted;
      // A message sent in the frame's last callback arrives after it was painted.
      requestAnimationFrame(() => requestAnimationFrame(() => port2.postMessage(null)));
      return body;
    };
    return answer;
  };
}

const middle = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const ms = (number) => `${number.toFixed(1)} ms`;
const line = (what, value, verdict = "") => console.log(`  ${what.padEnd(58)} ${value.padStart(12)}${verdict}`);

const server = registry();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const lab = await Lab.start();
try {
  const page = await lab.admin("/registries");
  lab.host = `127.0.0.1:${server.address().port}`;
  const started = performance.now();
  await lab.fill(page, lab.host, PATIENCE);
  console.log(`\nimages page: ${(REPOSITORIES * TAGS).toLocaleString("en")} images`);
  line("reading them all from the registry, on the way", `${((performance.now() - started) / 1_000).toFixed(0)} s`);

  await page.context().addInitScript(watch);
  const opened = performance.now();
  await page.goto(`${lab.url}/images`);
  await page.getByText(/^1–50 of 100,000$/).waitFor();
  line("opening the page, until the first rows are there", ms(performance.now() - opened));
  const taken = async (act) => {
    const before = await page.evaluate(() => window.speed.length);
    await act();
    await until("a repaint", () => page.evaluate((before) => window.speed.length > before, before));
    return page.evaluate((before) => window.speed.slice(before), before);
  };
  const report = async (what, times) => {
    const most = Math.max(...times.map(({ repaint }) => repaint));
    line(`${what}: the answer, median of ${times.length}`, ms(middle(times.map(({ answer }) => answer))));
    line(`${what}: from the answer to the paint, median`, ms(middle(times.map(({ repaint }) => repaint))));
    line(
      `${what}: from the answer to the paint, the longest`,
      ms(most),
      `   at most ${MOST_REPAINT} ms: ${most <= MOST_REPAINT ? "ok" : "MISSED"}`,
    );
  };
  const search = page.getByLabel("Search images");
  const typed = [];
  for (const word of WORDS) {
    for (const letter of word) {
      // A space alone asks for nothing else than before.
      if (letter === " ") await search.press("Space");
      else typed.push(...(await taken(() => search.press(letter))));
    }
    await taken(() => search.fill(""));
  }
  await report("typing", typed);
  const ordered = [];
  for (const name of ["Size", "Size", "Architecture", "Image"])
    ordered.push(...(await taken(() => page.getByRole("button", { name }).click())));
  await report("ordering", ordered);
  const turned = [];
  for (let turn = 0; turn < 10; turn += 1)
    turned.push(...(await taken(() => page.getByRole("button", { name: "Next page" }).click())));
  await report("turning the page", turned);
  line("elements on the page", String(await page.evaluate(() => document.querySelectorAll("*").length)));
} finally {
  await lab.close();
  server.closeAllConnections();
  server.close();
}
