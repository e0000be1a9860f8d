import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, until } from "./support.js";

let lab;
let page;
before(async () => {
  lab = await Lab.start({ layouts: ["one"] });
  for (const name of ["lab/python", "lab/r-base"]) await lab.push(name, "1");
  page = await lab.admin("/rules");
  page.setDefaultTimeout(120_000);
  await lab.fill(page);
  for (const name of ["lab/python", "lab/r-base"]) {
    const query = 'mutation($r: String!) { preload_image(reference: $r, target_agents: "*") { ok msg } }';
    const answer = await lab.ask(page, query, { r: `${lab.host}/${name}:1` });
    assert.ok(answer.preload_image.ok, JSON.stringify(answer));
  }
  await until("the images to be there", async () => lab.held("one").length === 2);
});
after(() => lab?.close());

test("a retention rule is added, shows what it would take, and is removed", async () => {
  await page.getByRole("button", { name: "Add a retention rule" }).click();
  const dialog = page.getByRole("dialog", { name: "Add a retention rule" });
  await dialog.getByLabel("Name", { exact: true }).fill("old");
  await dialog.getByLabel("Unused for, in days").fill("x");
  await dialog.getByRole("button", { name: "Add a retention rule" }).click();
  await dialog.getByText("Unused for, in days: it is no number").waitFor();
  await dialog.getByLabel("Unused for, in days").fill("30");
  await dialog.getByLabel("Keep the last of each repository").fill("2");
  await dialog.getByRole("button", { name: "Add a retention rule" }).click();
  await dialog.waitFor({ state: "detached" });
  const article = page.getByRole("article", { name: "old" });
  await article.getByText("unused for 30 days, all but the last 2").waitFor();
  await article.getByText("nothing to take").waitFor();
  await article.getByRole("button", { name: "What old would take now" }).click();
  const plan = page.getByRole("dialog", { name: "What old would take now" });
  await plan.getByText("0 images to go").waitFor();
  await page.keyboard.press("Escape");
  await plan.waitFor({ state: "detached" });
  await article.getByRole("button", { name: "Edit old" }).click();
  const edited = page.getByRole("dialog", { name: "Edit old" });
  assert.equal(await edited.getByLabel("Unused for, in days").inputValue(), "30");
  assert.equal(await edited.getByLabel("Keep the last of each repository").inputValue(), "2");
  assert.equal(await edited.getByLabel("Until so much is free, in GB").inputValue(), "");
  await edited.getByLabel("Unused for, in days").fill("45");
  await edited.getByLabel("Keep the last of each repository").fill("");
  await edited.getByLabel("Only where less is free than, in GB").fill("0.5");
  await edited.getByRole("button", { name: "Save" }).click();
  await edited.waitFor({ state: "detached" });
  await article.getByText("unused for 45 days, where less than 500 MB is free, until 500 MB is").waitFor();
  await article.getByRole("button", { name: "Switch off old" }).click();
  await article.getByText("switched off").waitFor();
  await article.getByRole("button", { name: "Remove old" }).click();
  await page.getByRole("dialog", { name: "Remove old" }).getByRole("button", { name: "Remove the rule" }).click();
  await article.waitFor({ state: "detached" });
});

test("an image is pinned on its agent, and one that nobody ordered is found and unloaded", async () => {
  const [python, other] = ["lab/python", "lab/r-base"].map((name) => `${lab.host}/${name}:1`);
  await page.goto(`${new URL(page.url()).origin}/agents?agent=i-one`);
  const drawer = page.getByRole("dialog", { name: "i-one" });
  await drawer.getByRole("button", { name: `Pin ${python}`, exact: true }).click();
  await drawer.getByRole("button", { name: `Unpin ${python}`, exact: true }).waitFor();
  const { image_pins } = await lab.ask(page, "{ image_pins { reference target_agents } }", {});
  assert.deepEqual(image_pins, [{ reference: python, target_agents: "i-one" }]);

  await lab.ask(page, "mutation($r: String!) { forget_image(reference: $r) { ok } }", { r: other });
  await page.goto(`${new URL(page.url()).origin}/agents`);
  await page.getByRole("heading", { name: "Not in the catalog" }).waitFor();
  await page.getByRole("button", { name: `Unload ${other}` }).click();
  const confirm = page.getByRole("dialog", { name: "Unload an image that the catalog does not know" });
  await confirm.getByRole("button", { name: "Unload" }).click();
  await until("it to be gone", async () => lab.held("one").length === 1);
  assert.deepEqual(lab.held("one"), [python]);
  await page.getByRole("heading", { name: "Not in the catalog" }).waitFor({ state: "detached" });
});
