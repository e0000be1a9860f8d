// One architecture of an image: what is begun from it touches no agent of another.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { Lab, until } from "./support.js";

const ALPINE = "library/alpine:3.20";
let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 3, architectures: ["aarch64"] });
  await lab.push("library/alpine", "3.20", { architectures: ["amd64", "arm64"] });
  await lab.push("library/busybox", "1.36", { architectures: ["amd64", "arm64"] });
  page = await lab.admin("/images");
  await lab.fill(page);
});
after(() => lab?.close());

const ask = async (field, architecture = "") => {
  const only = architecture && `, architecture: "${architecture}"`;
  const document = `mutation($r: String!) { ${field}(reference: $r, target_agents: "*"${only}) { ok msg } }`;
  const answer = await lab.ask(page, document, { r: `${lab.host}/${ALPINE}` });
  assert.ok(answer[field].ok, answer[field].msg);
};
/** The agents that have the image of their own architecture. */
async function holders() {
  const query =
    "query($r: [String!]!) { presence_matrix(references: $r) { agents architectures rows { architecture states } } }";
  const { presence_matrix } = await lab.ask(page, query, { r: [`${lab.host}/${ALPINE}`] });
  const { agents, architectures, rows } = presence_matrix;
  return agents.filter((_, place) => {
    const own = rows.find((row) => row.architecture === architectures[place]);
    return own?.states[place] === "p";
  });
}
const held = (...agents) => until(`${agents} to have it`, async () => (await holders()).join() === agents.join());
/** No task is running any more. */
async function quiet() {
  await until("no task", async () => {
    const { background_tasks } = await lab.ask(page, "{ background_tasks { state } }");
    return background_tasks.every((task) => task.state !== "started");
  });
}

beforeEach(async () => {
  await page.goto(`${lab.url}/images`);
  await ask("preload_image");
  await held("i-gpu01", "i-gpu02", "i-gpu03");
  await quiet();
});

/** Names every agent in the dialog and begins. */
async function everywhere(dialog) {
  await dialog.getByRole("textbox", { name: "Agents" }).fill("*");
  await dialog.getByText("3 agents", { exact: true }).waitFor();
  await dialog.getByRole("button", { name: /^(Unload from|Preload on) \d/ }).click();
  await dialog.waitFor({ state: "detached" });
  await quiet();
}
const chosen = (dialog) => dialog.getByLabel("Architecture", { exact: true });

test("a row that a filter by architecture shows is unloaded in that architecture only", async () => {
  await page.getByLabel("Architecture", { exact: true }).selectOption("aarch64");
  await until("the filter", async () => !(await page.locator("tbody").innerText()).includes("x86_64"));
  await page.getByRole("checkbox", { name: /Select .*alpine/ }).check();
  await page.getByRole("toolbar").getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: "Unload an image" });
  await everywhere(dialog);
  assert.deepEqual(await holders(), ["i-gpu02", "i-gpu03"], "the x86_64 image stays");
  // It is loaded again where it was, and nowhere else.
  await page.getByRole("button", { name: "Load again" }).click();
  await held("i-gpu01", "i-gpu02", "i-gpu03");
});

test("a tag is one row with its architectures, and the dialog names those that it touches", async () => {
  await until("two rows", async () => (await page.locator("tbody tr").count()) === 2);
  const row = page.locator("tbody tr").first();
  for (const architecture of ["aarch64", "x86_64"])
    await row.getByRole("link", { name: architecture, exact: true }).waitFor();
  await row.getByRole("checkbox").check();
  await page.getByRole("toolbar").getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: "Unload an image" });
  await dialog.getByRole("textbox", { name: "Agents" }).fill("*");
  await dialog.getByText("aarch64 on 1 agent · x86_64 on 2 agents").waitFor();
  await dialog.getByRole("button", { name: "Unload from 3 agents" }).waitFor();
  await chosen(dialog).selectOption("aarch64");
  await dialog.getByText("2 agents of other architectures are left out.").waitFor();
  await dialog.getByRole("button", { name: "Unload from 1 agent" }).waitFor();
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu02");
  await dialog.getByText("None of these agents is aarch64.").waitFor();
  assert.ok(await dialog.getByRole("button", { name: /^Unload/ }).isDisabled());
  await chosen(dialog).selectOption("x86_64");
  await everywhere(dialog);
  assert.deepEqual(await holders(), ["i-gpu01"]);
});

test("what is pressed on the page of one architecture is for that one", async () => {
  await ask("unload_image");
  await held();
  await page.getByRole("link", { name: "aarch64", exact: true }).first().click();
  const drawer = page.getByRole("dialog", { name: /alpine/i });
  await drawer.getByText("2 agents run other architectures.").waitFor();
  assert.equal(await drawer.getByRole("button", { name: "Preload on i-gpu02" }).count(), 0);
  await drawer.getByRole("button", { name: "Preload", exact: true }).first().click();
  const dialog = page.getByRole("dialog", { name: "Preload an image" });
  assert.equal(await chosen(dialog).inputValue(), "aarch64");
  await everywhere(dialog);
  assert.deepEqual(await holders(), ["i-gpu01"]);
  await drawer.getByRole("link", { name: "x86_64", exact: true }).click();
  await drawer.getByRole("button", { name: "Preload on i-gpu03" }).click();
  assert.equal(await chosen(dialog).inputValue(), "x86_64");
  await dialog.getByRole("button", { name: "Preload on 1 agent" }).click();
  await held("i-gpu01", "i-gpu03");
});

test("a row of the matrix is one architecture, and what is done to it touches no other", async () => {
  await page.goto(`${lab.url}/presence?q=alpine`);
  await page
    .getByRole("gridcell", { name: /^i-gpu01: present/ })
    .first()
    .waitFor();
  await page.getByRole("rowheader").filter({ hasText: "aarch64" }).getByRole("button").click();
  await page.getByText("1 image × 3 agents").waitFor();
  await page.getByRole("toolbar").getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: "Unload an image" });
  assert.equal(await chosen(dialog).inputValue(), "aarch64");
  await everywhere(dialog);
  assert.deepEqual(await holders(), ["i-gpu02", "i-gpu03"]);
});

test("rows of different architectures are acted on together only if they are all of each image", async () => {
  await page.goto(`${lab.url}/presence`);
  await page
    .getByRole("gridcell", { name: /^i-gpu01: / })
    .nth(3)
    .waitFor();
  await page.getByRole("grid").focus();
  const bar = page.getByRole("toolbar");
  for (const key of ["Control+Home", "Space", "Shift+ArrowDown", "Shift+ArrowDown"]) await page.keyboard.press(key);
  await bar.getByText(/^3 images × /).waitFor();
  await bar.getByRole("button", { name: "Unload" }).click();
  await page.getByText(/Select rows of one architecture/).waitFor();
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.getByRole("grid").focus();
  await page.keyboard.press("Shift+ArrowDown");
  await bar.getByText(/^4 images × /).waitFor();
  await bar.getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: "Unload 2 images" });
  assert.equal(await chosen(dialog).inputValue(), "");
});

test("a task for one architecture says so, and how many agents it left out", async () => {
  await ask("unload_image", "aarch64");
  await quiet();
  const { background_tasks } = await lab.ask(page, "{ background_tasks(limit: 1) { id } }");
  await page.goto(`${lab.url}/tasks/${background_tasks[0].id}`);
  await page.getByText("Only aarch64").waitFor();
  await page.getByText("2 agents of other architectures are left out.").waitFor();
});

test("a rule is for one architecture if it says so", async () => {
  await page.goto(`${lab.url}/rules?add=1`);
  const dialog = page.getByRole("dialog", { name: "Add a rule" });
  await dialog.getByLabel("Name", { exact: true }).fill("arm");
  await dialog.getByRole("textbox", { name: "Images" }).fill("*/library/busybox:*");
  await dialog.getByRole("textbox", { name: "Agents" }).fill("*");
  await dialog.getByText("1 image on 3 agents").waitFor();
  await chosen(dialog).selectOption("aarch64");
  await dialog.getByText("1 image on 1 agent", { exact: true }).waitFor();
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.waitFor({ state: "detached" });
  const article = page.getByRole("article", { name: "arm" });
  await article.getByText("Only aarch64").waitFor();
  await article.getByText("1 there, 0 missing").waitFor();
});
