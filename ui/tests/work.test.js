import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { registry } from "./registry.js";
import { Lab, until } from "./support.js";

let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 3 });
  for (const tag of ["3.9-ubuntu20.04", "3.10-ubuntu20.04", "3.11-ubuntu22.04-cuda12"])
    await lab.push("stable/python", tag, { bytes: 30_000 });
  await lab.push("library/alpine", "3.20", { architectures: ["amd64", "arm64"] });
  page = await lab.admin("/registries");
});
after(() => lab?.close());

const cell = (page, agent) => page.getByRole("gridcell", { name: new RegExp(`^${agent}:`) });

test("a registry is added, tested and read, with its progress and ledger", async () => {
  await page.getByRole("button", { name: "Add a registry" }).first().click();
  await page.getByLabel("Host", { exact: true }).fill(lab.host);
  await page.getByLabel("Address", { exact: true }).fill("http://127.0.0.1:1");
  await page.getByRole("button", { name: "Add and test" }).click();
  await page.getByRole("alert").getByText("It is saved, but it can't be read").waitFor();
  await page.getByLabel("Address", { exact: true }).fill(`http://${lab.host}`);
  await page.getByRole("button", { name: "Save and test" }).click();
  await page.getByRole("status").getByText(`${lab.host} answers.`).waitFor();
  let goOn;
  lab.pause = new Promise((resolve) => (goOn = resolve));
  await page.getByRole("button", { name: `Rescan ${lab.host}` }).click();
  await page.getByRole("progressbar", { name: `Rescan of ${lab.host}` }).waitFor();
  lab.pause = null;
  goOn();
  await page.getByText("5 added").waitFor();
  await page.getByRole("link", { name: "Ledger" }).click();
  await page.getByRole("heading", { level: 1, name: `Rescan ${lab.host}` }).waitFor();
});

test("typing searches on the server, and choices narrow it down", async () => {
  await page.goto(`${lab.url}/images`);
  await page
    .getByRole("link", { name: /python/i })
    .first()
    .waitFor();
  await page.getByLabel("Search images").fill("python cuda");
  await until("one row", async () => (await page.locator("tbody tr").count()) === 1);
  await page.getByRole("button", { name: "Clear", exact: true }).click();
  await page.getByLabel("Architecture", { exact: true }).selectOption("aarch64");
  await until("one row", async () => (await page.locator("tbody tr").count()) === 1);
  await page.getByRole("link", { name: /alpine/i }).waitFor();
  await page.getByLabel("Search images").fill("no-such-image");
  await page.getByRole("heading", { name: "No image fits" }).waitFor();
});

test("a wrong expression shows its place, a right one is followed until the matrix has changed", async () => {
  await page.goto(`${lab.url}/images?q=3.9-ubuntu`);
  await page.getByRole("checkbox", { name: /Select .*3\.9-ubuntu20\.04/ }).check();
  await page.getByRole("toolbar").getByRole("button", { name: "Preload" }).click();
  const dialog = page.getByRole("dialog", { name: "Preload an image" });
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu01,i-gpu99");
  await dialog.getByText("no such agent: i-gpu99").waitFor();
  assert.match(await dialog.locator("pre").innerText(), /i-gpu01,i-gpu99\n {8}\^/);
  assert.ok(await dialog.getByRole("button", { name: "Preload", exact: true }).isDisabled());
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu[01-03]!i-gpu02");
  await dialog.getByText("2 agents", { exact: true }).waitFor();
  await dialog.getByText("to fetch in all").waitFor();
  await dialog.getByRole("button", { name: "Preload on 2 agents" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.goto(`${lab.url}/presence?q=3.9-ubuntu`);
  for (const [agent, state] of [
    ["i-gpu01", "present"],
    ["i-gpu02", "absent"],
    ["i-gpu03", "present"],
  ]) {
    await until(
      `${agent} ${state}`,
      async () =>
        (await cell(page, agent)
          .getAttribute("aria-label")
          .catch(() => "")) === `${agent}: ${state}`,
    );
  }
});

test("an image that the registry has moved on is stale where it was loaded, and can be asked for", async () => {
  await lab.push("stable/r-base", "4.4");
  await lab.scan(page);
  const started = await lab.ask(
    page,
    'mutation { preload_image(reference: "stable/r-base:4.4", target_agents: "i-gpu01") { ok } }',
  );
  assert.ok(started.preload_image.ok);
  await page.goto(`${lab.url}/presence?q=r-base`);
  const label = () => cell(page, "i-gpu01").getAttribute("aria-label");
  await until("present", async () => (await label().catch(() => "")) === "i-gpu01: present");
  await lab.push("stable/r-base", "4.4", { content: "newer" });
  await lab.scan(page);
  await until("stale", async () => (await label()) === "i-gpu01: stale");
  await page.goto(`${lab.url}/images`);
  await page.getByLabel("Stale", { exact: true }).selectOption("yes");
  await until("one row", async () => (await page.locator("tbody tr").count()) === 1);
  await page.getByRole("link", { name: /r-base/ }).waitFor();
});

test("a cell of the matrix is acted on, by mouse and by keys", async () => {
  await page.goto(`${lab.url}/presence?q=3.9-ubuntu`);
  await cell(page, "i-gpu02").waitFor();
  await page.getByRole("grid").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  await page.getByText("1 image × 1 agent").waitFor();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Preload an image" });
  assert.equal(await dialog.getByRole("textbox", { name: "Agents" }).inputValue(), "i-gpu02");
  await dialog.getByRole("button", { name: "Preload on 1 agent" }).click();
  await until(
    "gpu02 to have it",
    async () => (await cell(page, "i-gpu02").getAttribute("aria-label")) === "i-gpu02: present",
  );
});

test("unloading is undone", async () => {
  await page.goto(
    `${lab.url}/images?image=${encodeURIComponent(`${lab.host}/stable/python:3.9-ubuntu20.04 x86_64`)}`,
  );
  await page.getByRole("button", { name: "Unload i-gpu02" }).click();
  const dialog = page.getByRole("dialog", { name: "Unload an image" });
  await dialog.getByRole("button", { name: "Unload from 1 agent" }).click();
  await page.getByRole("button", { name: "Preload on i-gpu02" }).waitFor();
  await page.getByRole("button", { name: "Load again" }).click();
  await page.getByRole("button", { name: "Unload i-gpu02" }).waitFor();
});

test("forgetting names what goes, and brings it back with its alias", async () => {
  const key = `${lab.host}/stable/python:3.10-ubuntu20.04 x86_64`;
  await page.goto(`${lab.url}/images?image=${encodeURIComponent(key)}`);
  await page.getByLabel("New alias").fill("py310");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("button", { name: "Remove the alias py310" }).waitFor();
  await page.getByRole("button", { name: "Forget" }).click();
  const question = page.getByRole("dialog", { name: "Forget 1 image?" });
  await question.getByText(key).waitFor();
  await question.getByRole("button", { name: "Forget" }).click();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByText("1 image brought back.").waitFor();
  await page.goto(`${lab.url}/images?q=py310`);
  await page.goto(`${lab.url}/images?image=${encodeURIComponent(key)}`);
  await page.getByRole("button", { name: "Remove the alias py310" }).waitFor();
});

test("a task is cancelled, and what failed is tried again", async () => {
  for (const engine of lab.engines) engine.stall = 0.5;
  await lab.ask(
    page,
    'mutation { preload_image(reference: "stable/python:3.11-ubuntu22.04-cuda12", target_agents: "*") { ok msg } }',
  );
  await page.goto(`${lab.url}/tasks`);
  const running = page.getByRole("region", { name: "Running" });
  await running.getByRole("progressbar").waitFor();
  await running.getByRole("button", { name: /^Cancel/ }).click();
  await running.waitFor({ state: "detached" });
  for (const engine of lab.engines) engine.stall = null;
  await page.getByRole("region", { name: "Ended" }).getByRole("link").first().click();
  await page.getByRole("button", { name: "Retry what failed" }).click();
  // A page that is left takes its questions with it.
  await page.getByRole("status").getByText("Loading 1 image.").waitFor();
  await page.goto(`${lab.url}/presence?q=3.11-ubuntu`);
  for (const agent of ["i-gpu01", "i-gpu02", "i-gpu03"]) {
    await until(
      `${agent}`,
      async () =>
        (await cell(page, agent)
          .getAttribute("aria-label")
          .catch(() => "")) === `${agent}: present`,
    );
  }
});

test("a server that goes down is seen at once, and its task goes on in an open page", async () => {
  for (const engine of lab.engines) engine.slowness = 20_000;
  await lab.push("stable/python", "3.12-slow", { bytes: 20_000 });
  await lab.scan(page);
  const other = await lab.tab(page, "/images");
  await page.goto(`${lab.url}/tasks`);
  await page.getByRole("heading", { name: "Ended" }).waitFor();
  await lab.ask(
    page,
    'mutation { preload_image(reference: "stable/python:3.12-slow", target_agents: "*") { ok msg } }',
  );
  await page.getByRole("region", { name: "Running" }).waitFor();
  await lab.kill();
  await page.getByText("The server does not answer.", { exact: true }).waitFor();
  for (const engine of lab.engines) engine.slowness = 0;
  await lab.serve();
  await page.getByText("The server does not answer.", { exact: true }).waitFor({ state: "detached" });
  await page.getByRole("region", { name: "Running" }).waitFor({ state: "detached" });
  await page.getByText("3 loaded").or(page.getByText("3 already there")).first().waitFor();
  // The other tab, in the background all the while, is right as soon as it is looked at.
  await other.bringToFront();
  await other.getByLabel("Search images").fill("3.12-slow");
  await until("installed", async () => (await other.locator("tbody tr").first().innerText()).includes("On an agent"));
});

test("a network that is cut is seen, and what is on the page is right again without a reload", async () => {
  lab.mayFail = true;
  const cut = await lab.admin("/images");
  await cut.evaluate(() => (window.isTheSamePage = true));
  await cut.context().setOffline(true);
  const banner = cut.getByText("The server does not answer.", { exact: true });
  await banner.waitFor();
  await lab.push("stable/python", "3.13-late");
  await lab.scan(page);
  await cut.context().setOffline(false);
  await banner.waitFor({ state: "detached" });
  await cut.getByRole("link", { name: /3\.13-late/ }).waitFor();
  assert.equal(await cut.evaluate(() => window.isTheSamePage), true);
});

test("images that a scan did not dare to remove are removed from its page, after a question", async () => {
  const shrinking = await registry(1, 20);
  try {
    const add =
      "mutation($host: String!, $props: CreateContainerRegistryInput!) { create_container_registry(hostname: $host, props: $props) { container_registry { hostname } } }";
    await lab.ask(page, add, { host: shrinking.host, props: { url: `http://${shrinking.host}` } });
    await lab.scan(page);
    shrinking.keep(2);
    await page.goto(`${lab.url}/registries`);
    await page.getByRole("button", { name: `Rescan ${shrinking.host}` }).click();
    await page.getByText("2 unchanged, 1 failed").waitFor();
    const { background_tasks } = await lab.ask(page, "{ background_tasks(limit: 1) { id } }");
    await page.goto(`${lab.url}/tasks/${background_tasks[0].id}`);
    await page.getByRole("button", { name: "Rescan and remove" }).click();
    const dialog = page.getByRole("alertdialog").or(page.getByRole("dialog"));
    await dialog.getByRole("button", { name: "Rescan and remove" }).click();
    const left = async () => {
      const { images } = await lab.ask(page, "{ images { registry } }");
      return images.filter((image) => image.registry === shrinking.host).length;
    };
    await until("two images", async () => (await left()) === 2);
  } finally {
    shrinking.close();
  }
});
