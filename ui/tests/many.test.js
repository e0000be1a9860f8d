import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, until } from "./support.js";

const COUNT = 130;
let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 3 });
  for (let from = 0; from < COUNT; from += 10)
    await Promise.all(Array.from({ length: 10 }, (_, place) => lab.push("bulk/tool", `v${from + place}`)));
  await lab.push("stable/python", "3.12");
  page = await lab.admin("/images");
  await lab.fill(page);
});
after(() => lab?.close());

const here = (states) => states.filter(({ state }) => state === "present").length;
const presence = async (reference) =>
  (await lab.ask(page, "query($r: String!) { image_presence(reference: $r) { state } }", { r: reference }))
    .image_presence;

test("everything that fits is selected at once, over all pages, and loaded with one plan", async () => {
  await page.goto(`${lab.url}/images?q=bulk`);
  await page.getByText(`1–50 of ${COUNT}`).waitFor();
  await page.getByRole("checkbox", { name: "Select all on this page" }).check();
  await page.getByRole("button", { name: `Select all ${COUNT} that fit` }).click();
  await page.getByText(`${COUNT} selected`).waitFor();
  await page.getByRole("button", { name: "Select none" }).click();
  await page.getByLabel("Search images").fill("bulk v10");
  // v10, and v100 to v109.
  await until("fewer rows", async () => (await page.locator("tbody tr").count()) === 11);
  await page.getByRole("checkbox", { name: "Select all on this page" }).check();
  const { length } = await page.locator("tbody tr.chosen").all();
  await page.getByRole("toolbar").getByRole("button", { name: "Preload" }).click();
  const dialog = page.getByRole("dialog", { name: `Preload ${length} images` });
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu[01-02]");
  await dialog.getByText("to fetch at most").waitFor();
  assert.equal(await dialog.getByText(`${length} will be fetched`).count(), 2);
  await dialog.getByRole("button", { name: "Preload on 2 agents" }).click();
  await dialog.waitFor({ state: "detached" });
  await until("both to have v10", async () => here(await presence("bulk/tool:v10")) === 2);
  await until("the tasks' end", async () => {
    const { background_tasks } = await lab.ask(page, "{ background_tasks(limit: 200) { state } }");
    return background_tasks.every((task) => task.state !== "started");
  });
});

test("unloading what fits a filter names the images and where they go from, and nothing else goes", async () => {
  await page.goto(`${lab.url}/images?q=bulk&installed=yes`);
  await page.getByRole("checkbox", { name: "Select all on this page" }).check();
  const { length } = await page.locator("tbody tr.chosen").all();
  await page.getByRole("toolbar").getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: `Unload ${length} images` });
  assert.equal(await dialog.getByRole("list").first().getByRole("listitem").count(), length);
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu03");
  await dialog.getByText("None of these agents holds any of it.").waitFor();
  await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu02,i-gpu03");
  await dialog.getByRole("row", { name: `i-gpu02 ${length} images` }).waitFor();
  assert.equal(await dialog.getByRole("row").count(), 2);
  await dialog.getByRole("button", { name: "Unload from 2 agents" }).click();
  await until("gpu01 alone to have v10", async () => here(await presence("bulk/tool:v10")) === 1);
});

test("forgetting several names them all, and one press brings them back", async () => {
  await page.goto(`${lab.url}/images?q=bulk v11`);
  await page.getByRole("checkbox", { name: "Select all on this page" }).check();
  const { length } = await page.locator("tbody tr.chosen").all();
  assert.ok(length > 5);
  await page.getByRole("toolbar").getByRole("button", { name: "Forget" }).click();
  const question = page.getByRole("dialog", { name: `Forget ${length} images?` });
  assert.equal(await question.getByRole("listitem").count(), length);
  await question.getByRole("button", { name: "Forget" }).click();
  await page.getByRole("heading", { name: "No image fits" }).waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await until("all of them", async () => (await page.locator("tbody tr").count()) === length);
});
