// Container engines by the dozen: small servers that speak as much of Docker's API as wharf asks of it, and really
// read the registry. Each answers on a socket of its own, and pulls as slowly as it is told.

import { createHash, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const sha = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

export class Engine {
  /** Milliseconds that a layer takes. */
  slowness = 0;
  /** The share of a layer at which pulls stand still. */
  stall = null;
  /** Where registries really are, by the host in image names. */
  mirrors = {};
  architecture = "x86_64";
  #images = new Map();
  #listeners = new Set();

  constructor(name, socket) {
    this.name = name;
    this.socket = socket;
    this.id = randomUUID();
    this.server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => {
        if (!response.headersSent) response.writeHead(500, { "Content-Type": "application/json" });
        response.end(JSON.stringify({ message: String(error) }));
      });
    });
  }

  get url() {
    return `unix://${this.socket}`;
  }

  start() {
    return new Promise((resolve) => this.server.listen(this.socket, resolve));
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }

  /** Has it from the start. */
  hold(name, config, size = 1_000_000) {
    this.#images.set(config, { names: new Set([name]), manifests: new Set(), size });
  }

  async #answer(request, response) {
    const url = new URL(request.url, "http://engine");
    const path = decodeURIComponent(url.pathname.replace(/^\/v1\.\d+/, ""));
    const json = (status, body) => {
      response.writeHead(status, { "Content-Type": "application/json", "Api-Version": "1.41" });
      response.end(JSON.stringify(body));
    };
    request.resume();
    if (path === "/_ping") {
      response.writeHead(200, { "Api-Version": "1.41", Ostype: "linux", Server: "Docker/20.10.24 (linux)" });
      return response.end("OK");
    }
    if (path === "/version") return json(200, { Version: "20.10.24", ApiVersion: "1.41", MinAPIVersion: "1.12" });
    if (path === "/info") {
      return json(200, {
        ID: this.id,
        Name: this.name,
        ServerVersion: "20.10.24",
        OSType: "linux",
        Architecture: this.architecture,
        DockerRootDir: "/",
        Labels: [],
      });
    }
    if (path === "/system/df")
      return json(200, { LayersSize: [...this.#images.values()].reduce((sum, image) => sum + image.size, 0) });
    if (path === "/containers/json") return json(200, []);
    if (path === "/images/json")
      return json(
        200,
        [...this.#images].map(([id, image]) => this.#told(id, image)),
      );
    if (path === "/events") {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.flushHeaders();
      this.#listeners.add(response);
      return response.on("close", () => this.#listeners.delete(response));
    }
    if (path === "/images/create")
      return this.#pull(url.searchParams.get("fromImage"), url.searchParams.get("tag"), response);
    const named = /^\/images\/(.+?)(\/json|\/tag)?$/.exec(path);
    const found = named && this.#find(named[1]);
    if (!found) return json(404, { message: `No such image: ${path}` });
    const [id, image] = found;
    if (named[2] === "/json") return json(200, this.#told(id, image, true));
    if (named[2] === "/tag") {
      const name = `${url.searchParams.get("repo")}:${url.searchParams.get("tag")}`;
      for (const other of this.#images.values()) other.names.delete(name);
      image.names.add(name);
      this.#say("tag", id, name);
      response.writeHead(201);
      return response.end();
    }
    image.names.delete(named[1]);
    const steps = [{ Untagged: named[1] }];
    if (image.names.size === 0) {
      this.#images.delete(id);
      steps.push({ Deleted: id });
    }
    this.#say("delete", id, named[1]);
    return json(200, steps);
  }

  #told(id, image, isWhole = false) {
    return {
      Id: id,
      RepoTags: [...image.names],
      RepoDigests: [...image.manifests],
      Size: image.size,
      Created: isWhole ? "2026-01-01T00:00:00Z" : 0,
      Containers: -1,
      SharedSize: -1,
      VirtualSize: image.size,
      ParentId: "",
      Labels: {},
    };
  }

  #find(reference) {
    return [...this.#images].find(
      ([id, image]) => id === reference || image.names.has(reference) || image.manifests.has(reference),
    );
  }

  #say(action, id, name) {
    const line = JSON.stringify({
      Type: "image",
      Action: action,
      Actor: { ID: id, Attributes: { name } },
      time: Math.floor(Date.now() / 1000),
    });
    for (const listener of this.#listeners) listener.write(`${line}\n`);
  }

  async #pull(repository, tag, response) {
    const host = repository.slice(0, repository.indexOf("/"));
    const name = repository.slice(host.length + 1);
    const answer = await fetch(`http://${this.mirrors[host] ?? host}/v2/${name}/manifests/${tag}`, {
      headers: {
        Accept: "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json",
      },
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (!answer.ok) {
      response.writeHead(404, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ message: `manifest for ${repository}:${tag} not found` }));
    }
    const manifest = JSON.parse(bytes.toString());
    let gone = false;
    response.on("close", () => (gone = true));
    response.writeHead(200, { "Content-Type": "application/json" });
    const say = (line) => response.write(`${JSON.stringify(line)}\r\n`);
    const STEPS = 10;
    for (const layer of manifest.layers) {
      const id = layer.digest.slice(7, 19);
      say({ status: "Pulling fs layer", progressDetail: {}, id });
      while (this.stall !== null && !gone) {
        // It stands still, and is no less alive: Docker says the same again and again.
        const current = Math.floor(layer.size * this.stall);
        say({ status: "Downloading", progressDetail: { current, total: layer.size }, id });
        await sleep(500, undefined, { ref: false });
      }
      for (let step = 1; step <= STEPS && this.slowness > 0; step += 1) {
        // Nobody waits for it when all else is over.
        await sleep(this.slowness / STEPS, undefined, { ref: false });
        // Whoever asked has hung up: the pull ends, as Docker's does.
        if (gone) return;
        say({
          status: "Downloading",
          progressDetail: { current: Math.floor((layer.size * step) / STEPS), total: layer.size },
          id,
        });
      }
      say({ status: "Pull complete", progressDetail: {}, id });
    }
    const digest = sha(bytes);
    const size = manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
    const image = this.#images.get(manifest.config.digest) ?? { names: new Set(), manifests: new Set(), size };
    image.manifests.add(`${repository}@${digest}`);
    if (!tag.startsWith("sha256:")) image.names.add(`${repository}:${tag}`);
    this.#images.set(manifest.config.digest, image);
    say({ status: `Digest: ${digest}` });
    this.#say("pull", `${repository}@${digest}`, repository);
    response.end();
  }
}

/** So many engines, with sockets in a folder: `gpu01`, `gpu02`, ... */
export async function fleet(folder, count, prefix = "gpu") {
  const width = Math.max(2, String(count).length);
  const engines = Array.from({ length: count }, (_, place) => {
    const name = `${prefix}${String(place + 1).padStart(width, "0")}`;
    return new Engine(name, join(folder, `${name}.sock`));
  });
  await Promise.all(engines.map((engine) => engine.start()));
  return engines;
}
