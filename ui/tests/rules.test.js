import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, until } from "./support.js";

let lab;
let page;
before(async () => {
  lab = await Lab.start({ layouts: ["one", "two"] });
  for (const name of ["lab/python", "lab/r-base", "other/tool"]) await lab.push(name, "1");
  page = await lab.admin("/rules");
  // After a round of a rule there is a rest that is longer the longer it took.
  page.setDefaultTimeout(300_000);
  await lab.fill(page);
});
after(() => lab?.close());

const article = (name) => page.getByRole("article", { name });
const state = async (image, agent) => {
  const { image_presence } = await lab.ask(
    page,
    "query($r: String!) { image_presence(reference: $r) { agent state } }",
    { r: image },
  );
  return image_presence.find((one) => one.agent === agent)?.state;
};
const isOn = (image, agent) => until(`${image} on ${agent}`, async () => (await state(image, agent)) === "present");

/** Fills in the dialog of a new rule; it is not sent yet. */
async function dialogOf(name, images, agents) {
  await page.getByRole("button", { name: "Add a rule" }).first().click();
  const dialog = page.getByRole("dialog", { name: "Add a rule" });
  await dialog.getByLabel("Name", { exact: true }).fill(name);
  await dialog.getByRole("textbox", { name: "Images" }).fill(images);
  await dialog.getByRole("textbox", { name: "Agents" }).fill(agents);
  return dialog;
}

test("a rule is written with its effect before one's eyes, and fills the agents", async () => {
  await page.getByRole("heading", { name: "No rules yet" }).waitFor();
  const dialog = await dialogOf("teaching", "*/lab/*", "i-one,i-two)");
  await dialog.locator("pre").waitFor();
  assert.match(await dialog.locator("pre").innerText(), /i-one,i-two\)\n {11}\^/);
  assert.ok(await dialog.getByRole("button", { name: "Add a rule" }).isDisabled());
  await dialog.getByRole("textbox", { name: "Agents" }).fill("");
  await dialog.getByRole("button", { name: "*", exact: true }).click();
  await dialog.getByText("2 images on 2 agents").waitFor();
  await dialog.getByText("0 there, 4 missing").waitFor();
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("status").getByText("teaching is saved.").waitFor();
  await article("teaching").getByText("all there").waitFor();
  await article("teaching").getByText("4 there, 0 missing").waitFor();
  for (const layout of ["one", "two"]) {
    const held = lab.held(layout);
    for (const image of ["lab/python:1", "lab/r-base:1"])
      assert.ok(held.includes(`${lab.host}/${image}`), `${image} in ${layout}: ${held}`);
    assert.equal(held.length, 2, `nothing else: ${held}`);
  }
  await article("teaching").getByRole("link", { name: "Task 1" }).click();
  await page.getByRole("heading", { level: 1, name: /Preload .*lab\/(python|r-base):1/ }).waitFor();
  await page.getByRole("link", { name: "teaching", exact: true }).click();
  await article("teaching").waitFor();
  await page.goto(`${lab.url}/presence?q=python`);
  await page.getByRole("gridcell", { name: "i-two: present" }).waitFor();
});

test("what comes to fit a rule is loaded by itself, and an open page shows it", async () => {
  await page.goto(`${lab.url}/rules`);
  await article("teaching").getByText("4 there, 0 missing").waitFor();
  await lab.push("lab/julia", "1");
  await lab.scan(page);
  await article("teaching").getByText("6 there, 0 missing").waitFor();
  await article("teaching").getByText("all there").waitFor();
});

test("a name that is taken, or none at all, is said in the dialog, and nothing typed is lost", async () => {
  const dialog = await dialogOf("teaching", "*/other/*", "i-one");
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.getByRole("alert").getByText("teaching").waitFor();
  assert.equal(await dialog.getByRole("textbox", { name: "Images" }).inputValue(), "*/other/*");
  await dialog.getByLabel("Name", { exact: true }).fill("tools");
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.waitFor({ state: "detached" });
  await isOn("other/tool:1", "i-one");
});

test("a rule that is switched off loads nothing, and what it missed is loaded once it is on", async () => {
  await article("teaching").getByRole("button", { name: "Switch off teaching" }).click();
  await page.getByRole("status").getByText("teaching is switched off.").waitFor();
  await article("teaching").getByText("switched off", { exact: true }).waitFor();
  // A rule that is on, for the same image: when that one has acted, the other would have too.
  const dialog = await dialogOf("control", "*/lab/late:*", "i-one");
  await dialog.getByText("0 images").waitFor();
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.waitFor({ state: "detached" });
  await lab.push("lab/late", "1");
  await lab.scan(page);
  await article("control").getByText("1 there, 0 missing").waitFor();
  assert.equal(await state("lab/late:1", "i-two"), "absent");
  await article("teaching").getByRole("button", { name: "Switch on teaching" }).click();
  await article("teaching").getByText("8 there, 0 missing").waitFor();
  assert.equal(await state("lab/late:1", "i-two"), "present");
});

test("a rule is changed, with what it was in the fields", async () => {
  await article("tools").getByRole("button", { name: "Edit tools" }).click();
  const dialog = page.getByRole("dialog", { name: "Edit tools" });
  assert.equal(await dialog.getByRole("textbox", { name: "Images" }).inputValue(), "*/other/*");
  const agents = dialog.getByRole("textbox", { name: "Agents" });
  assert.equal(await agents.inputValue(), "i-one");
  await agents.fill("i-one,i-two,i-three");
  await dialog.getByText("i-three").waitFor();
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
  await isOn("other/tool:1", "i-two");
  await article("tools").getByText("No agent or group is called so yet: i-three").waitFor();
});

test("a rule outside its window says when that opens, and loads nothing before", async () => {
  // A window of an hour that is closed now, wherever and whenever this runs.
  const hour = new Date().getUTCHours();
  const at = (more) => `${String((hour + more) % 24).padStart(2, "0")}:00`;
  await lab.push("night/only", "1");
  await lab.scan(page);
  const dialog = await dialogOf("night", "*/night/*", "*");
  await dialog.getByLabel("Window of the day").fill("late");
  await dialog.locator("pre").waitFor();
  await dialog.getByLabel("Window of the day").fill(`${at(6)}-${at(7)}`);
  await dialog.getByLabel("Time zone").fill("UTC");
  await dialog.getByText("opens ").waitFor();
  await dialog.getByRole("button", { name: "Add a rule" }).click();
  await dialog.waitFor({ state: "detached" });
  await article("night").getByText("waits for its window").waitFor();
  await article("night")
    .getByText(`${at(6)}-${at(7)} UTC`)
    .waitFor();
  assert.equal(await state("night/only:1", "i-one"), "absent");
});

test("removing a rule names it, and leaves the images where they are", async () => {
  for (const name of ["control", "night", "tools", "teaching"]) {
    await article(name)
      .getByRole("button", { name: `Remove ${name}` })
      .click();
    const question = page.getByRole("dialog", { name: `Remove ${name}` });
    await question.getByText(name, { exact: true }).waitFor();
    await question.getByRole("button", { name: "Remove the rule" }).click();
    await page.getByRole("status").getByText(`${name} is removed.`).waitFor();
    await article(name).waitFor({ state: "detached" });
  }
  await page.getByRole("heading", { name: "No rules yet" }).waitFor();
  assert.equal(await state("lab/python:1", "i-two"), "present");
});
