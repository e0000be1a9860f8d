// What only hands do: keys one by one, double presses, going back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, PASSWORD, until } from "./support.js";

const COUNT = 52;
let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 3 });
  for (let from = 0; from < COUNT; from += 13)
    await Promise.all(
      Array.from({ length: 13 }, (_, place) => lab.push("bulk/tool", `v${String(from + place).padStart(2, "0")}`)),
    );
  page = await lab.admin("/images");
  await lab.fill(page);
});
after(() => lab?.close());

const image = (tag) => `${lab.url}/images?image=${encodeURIComponent(`${lab.host}/bulk/tool:${tag} x86_64`)}`;
const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim());

test("whose session has ended types the password and goes on", async () => {
  await page.goto(`${lab.url}/agents`);
  await page.getByRole("link", { name: "i-gpu01" }).waitFor();
  await page.context().clearCookies();
  await page.getByRole("dialog", { name: "Sign in again" }).locator("input:focus").waitFor();
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Sign in again" }).waitFor({ state: "detached" });
  await page.getByRole("link", { name: "i-gpu01" }).waitFor();
});

test("a double press opens what it opens, and does what it does once", async () => {
  await page.goto(`${lab.url}/agents`);
  await page.getByRole("link", { name: "i-gpu01" }).dblclick();
  const drawer = page.getByRole("dialog", { name: "i-gpu01" });
  await drawer.getByRole("button", { name: "Drain" }).dblclick();
  await drawer.getByText("draining").waitFor();
  const { agent } = await lab.ask(page, '{ agent(agent_id: "i-gpu01") { schedulable } }');
  assert.equal(agent.schedulable, false);
  await drawer.getByRole("button", { name: "Undo" }).click();
  await drawer.getByText("answers").waitFor();
  await page.keyboard.press("Escape");
  await drawer.waitFor({ state: "detached" });
  // The second press falls on what is behind the dialog by then.
  await page.getByRole("button", { name: "Add an agent" }).dblclick();
  await page.getByRole("dialog", { name: "Add an agent" }).waitFor();
  await page.keyboard.type("far01");
  assert.equal(await page.getByRole("dialog", { name: "Add an agent" }).getByLabel("Agent id").inputValue(), "far01");
});

test("the keyboard is back at what opened a dialog when that closes", async () => {
  await page.goto(`${lab.url}/registries`);
  await page.getByRole("button", { name: "Add a registry" }).first().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Add a registry" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog", { name: "Add a registry" }).waitFor({ state: "detached" });
  await until("the keyboard to be back", async () => (await focused()) === "Add a registry");
});

test("a question of a page that is left is not asked any more", async () => {
  await page.goto(image("v00"));
  await page.getByRole("button", { name: "Forget" }).waitFor();
  await page.goto(`${lab.url}/registries`);
  await page.getByRole("link", { name: "Images", exact: true }).click();
  await page.getByRole("link", { name: "Registries", exact: true }).click();
  await page.getByRole("button", { name: /^Remove/ }).click();
  await page.getByRole("dialog").waitFor();
  await page.goBack();
  await page.getByRole("heading", { level: 1, name: "Images" }).waitFor();
  await page.getByRole("dialog").waitFor({ state: "detached" });
});

test("what is chosen in the matrix is let go when it shows other images", async () => {
  await page.goto(`${lab.url}/presence`);
  await page.getByRole("grid").focus();
  for (const key of ["ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight"]) await page.keyboard.press(key);
  const bar = page.getByRole("toolbar");
  await bar.getByText("2 images × 2 agents").waitFor();
  await page.getByLabel("Search images").click();
  await page.keyboard.type("v1");
  await bar.waitFor({ state: "detached" });
});

test("an undo is reached above another image's drawer, and leaves that open", async () => {
  await page.goto(image("v01"));
  await page.getByRole("button", { name: "Forget" }).click();
  await page.getByRole("dialog", { name: "Forget 1 image?" }).getByRole("button", { name: "Forget" }).click();
  await page.getByRole("button", { name: "Undo" }).waitFor();
  await page
    .getByRole("link", { name: /v02|v50/ })
    .first()
    .click();
  await page.getByRole("heading", { name: "Where it is" }).waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByText("1 image brought back.").waitFor();
  await page.getByRole("heading", { name: "Where it is" }).waitFor();
});

test("a last page that is emptied gives way to the first one", async () => {
  await page.goto(`${lab.url}/images`);
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByText(`51–${COUNT} of ${COUNT}`).waitFor();
  await page.getByRole("checkbox", { name: "Select all on this page" }).check();
  await page.getByRole("toolbar").getByRole("button", { name: "Forget" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Forget" }).click();
  await until("the first page", async () => (await page.locator("tbody tr").count()) === 50);
});

test("who closes a form while it is saved keeps what they type into the next one", async () => {
  await page.goto(`${lab.url}/access/domains`);
  let goOn;
  const held = new Promise((resolve) => (goOn = resolve));
  await page.route("**/graphql", async (route) => {
    if (route.request().postData()?.includes("create_domain")) await held;
    await route.continue();
  });
  const dialog = page.getByRole("dialog", { name: "Add a domain" });
  await page.getByRole("button", { name: "Add a domain" }).click();
  await page.keyboard.type("first");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Add a domain" }).click();
  await page.keyboard.type("second");
  goOn();
  await page.getByText("first", { exact: true }).waitFor();
  assert.equal(await dialog.getByLabel("Name", { exact: true }).inputValue(), "second");
  await page.unroute("**/graphql");
});

test("a page for super-admins says so to everybody else, also by its address", async () => {
  await page.goto(`${lab.url}/access/domains`);
  await lab.ask(
    page,
    `mutation { create_user(email: "bob@test.invalid", props: {username: "bob", password: "${PASSWORD}", need_password_change: false, domain_name: "default", full_name: "Bob", description: "", is_active: true, role: "user", group_ids: []}) { ok msg } }`,
  );
  const bob = await lab.visit("/");
  await lab.signIn(bob, "bob@test.invalid");
  await bob.goto(`${lab.url}/agents`);
  await bob.getByRole("heading", { level: 1, name: "This page is for super-admins" }).waitFor();
  await bob.getByRole("link", { name: "Images" }).first().click();
  await bob.getByRole("heading", { level: 1, name: "Images" }).waitFor();
});
