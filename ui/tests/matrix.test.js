import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { registry } from "./registry.js";
import { Lab, until } from "./support.js";

const AGENTS = 30;
let stock;
let lab;
let page;
before(async () => {
  stock = await registry(40, 10);
  lab = await Lab.start({ agents: AGENTS });
  lab.host = stock.host;
  page = await lab.admin("/registries");
  await lab.fill(page);
  await page.goto(`${lab.url}/presence`);
});
after(async () => {
  await lab?.close();
  stock?.close();
});

const LAST = 400;
const cell = (row, column) => page.locator(`[aria-rowindex="${row + 1}"] [aria-colindex="${column + 1}"]`);
const becomes = (row, column, label) =>
  until(`${label} in row ${row}`, async () => (await cell(row, column).getAttribute("aria-label")) === label);

test("what happens far down in the matrix is seen there, without a reload", async () => {
  await page.getByRole("grid").focus();
  await page.keyboard.press("Control+End");
  await page.keyboard.press("Home");
  await becomes(LAST, 1, "i-gpu01: absent");
  const { name, tag } = stock.images.at(-1);
  const { preload_image } = await lab.ask(
    page,
    'mutation($r: String!) { preload_image(reference: $r, target_agents: "i-gpu01") { ok msg } }',
    { r: `${stock.host}/${name}:${tag}` },
  );
  assert.ok(preload_image.ok, preload_image.msg);
  await becomes(LAST, 1, "i-gpu01: present");
});

test("names are read to their end, however many agents there are", async () => {
  const cut = await page
    .getByRole("rowheader")
    .locator(".clip")
    .evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent));
  assert.deepEqual(cut, []);
  const { name, tag } = stock.images.at(-1);
  assert.equal(await page.getByRole("rowheader").last().locator(".clip").count(), 2);
  assert.equal((await page.getByRole("rowheader").last().innerText()).replace(/\s/g, ""), `${name}${tag}`);
});

test("where one has scrolled to there is something, also when another search leaves as many images", async () => {
  const read = page.waitForResponse((answer) => {
    const { query, variables } = answer.request().postDataJSON() ?? {};
    return query?.includes("query PresenceImages") && variables.filter?.includes("py39") && variables.offset === 300;
  });
  await page.getByLabel("Search images").fill("py39");
  await read;
  await becomes(LAST, 1, "i-gpu01: present");
});

test("what is acted on is all that was chosen, also where it had not been read yet", async () => {
  const fresh = await lab.admin("/presence");
  await fresh.getByRole("gridcell").first().waitFor();
  let goOn;
  const held = new Promise((resolve) => (goOn = resolve));
  await fresh.route("**/graphql", async (route) => {
    if (route.request().postData()?.includes("query PresenceImages")) await held;
    await route.continue();
  });
  await fresh.getByRole("columnheader").getByRole("button", { name: "i-gpu02" }).click();
  await fresh.getByRole("toolbar").getByRole("button", { name: "Unload" }).click();
  goOn();
  await fresh.getByRole("dialog", { name: `Unload ${LAST} images` }).waitFor();
  await fresh.context().close();
});

test("all images of an agent are chosen by its name, counted, and can be acted on at once", async () => {
  await page.getByRole("columnheader").getByRole("button", { name: "i-gpu01" }).click();
  const bar = page.getByRole("toolbar");
  await bar.getByText(`${LAST} images × 1 agent`).waitFor();
  await until("all of them to be counted", async () => /1 present · 399 absent/.test(await bar.innerText()));
  await bar.getByRole("button", { name: "Unload" }).click();
  const dialog = page.getByRole("dialog", { name: `Unload ${LAST} images` });
  await dialog.getByRole("row", { name: "i-gpu01 1 image" }).waitFor();
  await dialog.getByRole("button", { name: "Unload from 1 agent" }).click();
  await dialog.waitFor({ state: "detached" });
  await becomes(LAST, 1, "i-gpu01: absent");
  await until("the count", async () => /400 absent/.test(await bar.innerText()));
});
