// The real parts, for one test file: a registry, a fleet, wharf itself, and a browser that looks at it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request as requested, createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { fleet } from "./fleet.js";

export const EMAIL = "admin@test.invalid";
export const PASSWORD = "planted-password-of-the-admin";
/** The machine may be busy with other things; what is right comes at once all the same. */
const PATIENCE = 120_000;
const WHARF = process.env.WHARF ?? join(import.meta.dirname, "../../target/debug/wharf");
export const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const sha = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Waits until something is so. */
export async function until(what, check, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A port that nobody has. Below those that are given to whoever asks for any, so that it stays so. */
export function freePort() {
  return new Promise((resolve) => {
    const server = createServer();
    const choose = () => server.listen(20_000 + Math.floor(Math.random() * 12_000), "127.0.0.1");
    server.on("error", choose);
    server.on("listening", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
    choose();
  });
}

function run(program, args, log, env) {
  const child = spawn(program, args, { env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const file = createWriteStream(log, { flags: "a" });
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  return child;
}

function ended(child) {
  return new Promise((resolve) =>
    child.exitCode !== null || child.signalCode ? resolve() : child.once("exit", resolve),
  );
}

/** A lab of its own: nothing of it is left when it is closed. */
export class Lab {
  folder = mkdtempSync(join(tmpdir(), "wharf-ui-"));
  engines = [];
  errors = [];
  /** Whether requests may fail just now: the server or the network is taken away. */
  mayFail = false;
  /** While this is a promise, the registry tells no manifest. */
  pause = null;
  /** What the registry says to everything, instead of the truth: a status and a body. */
  lie = null;
  #contexts = [];
  #agents = [];

  /**
   * `layouts` are agents with the built-in engine, by name; `isNew`: nobody has an account, and the link to the page
   * that makes the first is in `lab.setUpLink`. `architectures` are those of the first agents, the rest is x86_64.
   */
  static async start({ agents = 0, architectures = [], layouts = [], slowness = 0, isNew = false } = {}) {
    const lab = new Lab();
    lab.isNew = isNew;
    lab.layouts = layouts;
    try {
      lab.engines = await fleet(lab.folder, agents);
      for (const engine of lab.engines) engine.slowness = slowness;
      for (const [place, architecture] of architectures.entries()) lab.engines[place].architecture = architecture;
      await lab.#startRegistry();
      lab.port = await freePort();
      await lab.serve();
      lab.browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS });
    } catch (why) {
      // What runs already would keep the test from ending.
      await lab.close();
      throw why;
    }
    return lab;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async #startRegistry() {
    const inner = await freePort();
    this.host = `127.0.0.1:${await this.#startGate(inner)}`;
    const config = join(this.folder, "registry.yml");
    writeFileSync(
      config,
      `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${this.folder}/store}, delete: {enabled: true}}\nhttp: {addr: "127.0.0.1:${inner}", relativeurls: true, secret: test}\n`,
    );
    this.registry = run("docker-registry", ["serve", config], join(this.folder, "registry.log"), {
      OTEL_TRACES_EXPORTER: "none",
    });
    await until("the registry", () =>
      fetch(`http://${this.host}/v2/`).then(
        (answer) => answer.ok,
        () => false,
      ),
    );
  }

  /** Stands before the registry, to keep it from answering for a while. */
  async #startGate(inner) {
    this.gate = createHttpServer(async (request, response) => {
      if (request.url.includes("/manifests/") && request.method !== "PUT") await this.pause;
      if (this.lie) {
        response.writeHead(this.lie.status, { "Content-Type": "application/json" });
        return response.end(JSON.stringify(this.lie.body));
      }
      const { method, url: path, headers } = request;
      const onward = requested({ host: "127.0.0.1", port: inner, method, path, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onward.on("error", () => response.destroy());
      request.pipe(onward);
    });
    await new Promise((resolve) => this.gate.listen(0, "127.0.0.1", resolve));
    return this.gate.address().port;
  }

  /** Runs `wharf agent` on a node whose container engine is this one. */
  agent(engine, args, env) {
    const more = ["--engine", engine.url, "--state-dir", join(this.folder, `state-${engine.name}`)];
    const child = run(WHARF, ["agent", ...args, ...more], join(this.folder, "agent.log"), {
      HOME: this.folder,
      ...env,
    });
    this.#agents.push(child);
  }

  /** Starts wharf, again on the same directory and port if it was there before. */
  async serve() {
    const layouts = this.layouts.map((name) => `oci:${join(this.folder, name)}`);
    const engines = [...this.engines.map((engine) => engine.url), ...layouts].join(",") || "none";
    const oldLink = this.setUpLink;
    this.wharf = run(
      WHARF,
      ["serve", "--data-dir", join(this.folder, "data"), "--listen", `127.0.0.1:${this.port}`, "--engine", engines],
      join(this.folder, "wharf.log"),
      {
        HOME: this.folder,
        ...(this.isNew ? {} : { WHARF_ADMIN_EMAIL: EMAIL, WHARF_ADMIN_PASSWORD: PASSWORD }),
      },
    );
    await until(`wharf\n${this.log()}`, () => {
      assert.equal(this.wharf.exitCode, null, this.log());
      return fetch(`${this.url}/readyz`).then(
        (answer) => answer.ok,
        () => false,
      );
    });
    // It is logged after the server answers.
    if (this.isNew) await until("the link to the first account", () => this.setUpLink !== oldLink);
  }

  /** What a layout's index names, as any other program would read it. */
  held(layout) {
    const { manifests } = JSON.parse(readFileSync(join(this.folder, layout, "index.json"), "utf8"));
    return manifests.map((one) => one.annotations?.["org.opencontainers.image.ref.name"] ?? "");
  }

  /** As the last start logged it. */
  get setUpLink() {
    return [...this.log().matchAll(/"link":"([^"]+)"/g)].at(-1)?.[1];
  }

  log() {
    try {
      return readFileSync(join(this.folder, "wharf.log"), "utf8").split("\n").slice(-30).join("\n");
    } catch {
      return "";
    }
  }

  /** As a power cut does. */
  async kill() {
    this.mayFail = true;
    this.wharf.kill("SIGKILL");
    await ended(this.wharf);
  }

  async close() {
    await this.browser?.close();
    this.wharf?.kill("SIGKILL");
    this.registry?.kill("SIGKILL");
    for (const agent of this.#agents) agent.kill("SIGKILL");
    await Promise.all(this.#agents.map(ended));
    this.gate?.closeAllConnections();
    this.gate?.close();
    await Promise.all([this.wharf, this.registry].filter(Boolean).map(ended));
    await Promise.all(this.engines.map((engine) => engine.stop()));
    rmSync(this.folder, { recursive: true, force: true });
    assert.deepEqual(this.errors, [], "the browser's console");
  }

  /**
   * An image in the registry; what is pushed again under the same name with other content moves the tag. `said` is what
   * its manifest says a layer has in bytes, `kind` what it says it is, if not an image.
   */
  async push(
    repository,
    tag,
    {
      labels = {},
      architectures = ["amd64"],
      layers = 1,
      bytes = 4_000,
      said = null,
      kind = null,
      content = "",
    } = {},
  ) {
    const base = `http://${this.host}/v2/${repository}`;
    const upload = async (blob) => {
      const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST" });
      const place = new URL(begun.headers.get("location"), base);
      place.searchParams.set("digest", sha(blob));
      const put = await fetch(place, {
        method: "PUT",
        body: blob,
        headers: { "Content-Type": "application/octet-stream" },
      });
      assert.ok(put.ok, `upload: ${put.status}`);
    };
    const put = async (name, type, manifest) => {
      const body = JSON.stringify(manifest);
      const answer = await fetch(`${base}/manifests/${name(body)}`, {
        method: "PUT",
        body,
        headers: { "Content-Type": type },
      });
      assert.ok(answer.ok, `manifest: ${answer.status}`);
      return { mediaType: type, digest: sha(body), size: Buffer.byteLength(body) };
    };
    const TYPE = "application/vnd.docker.distribution.manifest.v2+json";
    const LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
    const isOne = architectures.length === 1;
    const manifests = [];
    for (const architecture of architectures) {
      const blobs = Array.from({ length: layers }, (_, place) =>
        Buffer.alloc(bytes, `${repository}:${tag} ${architecture} ${place} ${content} `),
      );
      const config = Buffer.from(
        JSON.stringify({
          architecture,
          os: "linux",
          created: "2026-01-01T00:00:00Z",
          comment: content,
          config: { Labels: labels },
          rootfs: { type: "layers", diff_ids: blobs.map(sha) },
        }),
      );
      for (const blob of [...blobs, config]) await upload(blob);
      const entry = await put((body) => (isOne ? tag : sha(body)), TYPE, {
        schemaVersion: 2,
        mediaType: TYPE,
        config: {
          mediaType: kind ?? "application/vnd.docker.container.image.v1+json",
          digest: sha(config),
          size: config.length,
        },
        layers: blobs.map((blob) => ({
          mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
          digest: sha(blob),
          size: said ?? blob.length,
        })),
      });
      manifests.push({ ...entry, platform: { os: "linux", architecture } });
    }
    if (!isOne) await put(() => tag, LIST, { schemaVersion: 2, mediaType: LIST, manifests });
  }

  /** A browser window that knows nobody. */
  async visit(path = "/", options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    this.#contexts.push(context);
    const page = await context.newPage();
    this.#listen(page);
    await page.goto(this.url + path);
    return page;
  }

  /** Another tab of the same browser. */
  async tab(page, path) {
    const other = await page.context().newPage();
    this.#listen(other);
    await other.goto(this.url + path);
    return other;
  }

  #listen(page) {
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      // The browser says this of each answer that is no success; a refusal is none, and the page deals with it.
      const isToBe = /Failed to load resource.* (400|401|403|429) /.test(message.text()) || this.mayFail;
      if (!isToBe) this.errors.push(`${message.text()} ${message.location().url}`);
    });
  }

  async signIn(page, email = EMAIL, password = PASSWORD) {
    await page.getByLabel("E-mail address").fill(email);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator("#main h1").waitFor();
  }

  /** The super-admin, signed in, on a page. */
  async admin(path = "/", options = {}) {
    const page = await this.visit(path, options);
    await this.signIn(page);
    return page;
  }

  /** Runs GraphQL as who is signed in on that page. */
  ask(page, query, variables = {}) {
    return page.evaluate(
      async ([query, variables]) => {
        const answer = await fetch("/graphql", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ query, variables }),
        });
        const { data, errors } = await answer.json();
        if (errors) throw new Error(errors[0].message);
        return data;
      },
      [query, variables],
    );
  }

  /** Knows the registry, by its host or by another name, and its images, to the end of the scan. */
  async fill(page, name = this.host, patience = PATIENCE) {
    const props = { url: `http://${this.host}` };
    for (const engine of this.engines) engine.mirrors[name] = this.host;
    await this.ask(
      page,
      "mutation($host: String!, $props: CreateContainerRegistryInput!) { create_container_registry(hostname: $host, props: $props) { container_registry { hostname } } }",
      { host: name, props },
    );
    await this.scan(page, patience);
  }

  async scan(page, patience = PATIENCE) {
    const { rescan_images } = await this.ask(page, "mutation { rescan_images { ok msg task_id } }");
    assert.ok(rescan_images.ok, rescan_images.msg);
    await until(
      "the scan",
      async () => {
        const { background_task } = await this.ask(
          page,
          "query($id: String!) { background_task(id: $id) { state } }",
          {
            id: rescan_images.task_id,
          },
        );
        return background_task.state === "done";
      },
      patience,
    );
  }
}
