// A registry in memory, with as many images as are wanted.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

/** So many different contents; the tags share them, or reading them all would be most of the work. */
const CONTENTS = 500;
const TYPE = "application/vnd.docker.distribution.manifest.v2+json";

export const sha = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

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
    manifests.push({ body: manifest, digest: sha(manifest), config: sha(config) });
  }
  return { blobs, manifests };
}

const nameOf = (number) =>
  `stable/python-${String(number).padStart(4, "0")}-tensorflow-${String(number % 100).padStart(2, "0")}`;

/** It listens when this returns. `images` are what it has: the name, the tag and the config's digest. */
export async function registry(repositoryCount, tagCount) {
  const { blobs, manifests } = contents();
  const repositories = Array.from({ length: repositoryCount }, (_, number) => nameOf(number));
  const tags = Array.from({ length: tagCount }, (_, number) => `2.${number}-py39-ubuntu20.04-cuda11.3`);
  const byDigest = new Map(manifests.map((one) => [one.digest, one]));
  const at = (name, tag) => manifests[(repositories.indexOf(name) * 7 + tags.indexOf(tag)) % manifests.length];
  const server = createServer((request, response) => {
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
    const found = byDigest.get(which) ?? (tags.includes(which) ? at(name, which) : undefined);
    if (!found) return response.writeHead(404, { "Content-Type": "application/json" }).end("{}");
    return json(found.body, {
      "Content-Type": TYPE,
      "Docker-Content-Digest": found.digest,
      ETag: `"${found.digest}"`,
      "Content-Length": Buffer.byteLength(found.body),
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${server.address().port}`,
    images: repositories.flatMap((name) => tags.map((tag) => ({ name, tag, config: at(name, tag).config }))),
    /** From now on it has no more tags than these. */
    keep(count) {
      tags.length = count;
    },
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
