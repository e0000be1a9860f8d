import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, until } from "./support.js";

const PASSWORD = "planted-password-of-ann";
let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 2 });
  await lab.push("stable/python", "3.12");
  await lab.push("stable/r-base", "4.4");
  page = await lab.admin("/access/domains");
  await lab.fill(page);
});
after(() => lab?.close());

test("a domain, a user and what the user may see are made by hand", async () => {
  await page.goto(`${lab.url}/access/domains`);
  await page.getByRole("button", { name: "Add a domain" }).click();
  let dialog = page.getByRole("dialog", { name: "Add a domain" });
  await dialog.getByLabel("Name", { exact: true }).fill("biology");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText("biology", { exact: true }).waitFor();
  await page.getByRole("link", { name: "Users" }).click();
  await page.getByRole("button", { name: "Add a user" }).click();
  dialog = page.getByRole("dialog", { name: "Add a user" });
  await dialog.getByLabel("E-mail address").fill("ann@test.invalid");
  await dialog.getByLabel("Password").fill(PASSWORD);
  await dialog.getByLabel("Domain").selectOption("biology");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText("ann@test.invalid", { exact: true }).waitFor();
});

test("on a narrow screen the tab one is at is in view", async () => {
  const narrow = await lab.admin("/access/tokens", { viewport: { width: 390, height: 844 } });
  const isInView = () =>
    narrow.getByRole("link", { name: "Tokens" }).evaluate((tab) => {
      const { left, right } = tab.getBoundingClientRect();
      return left >= 0 && right <= window.innerWidth;
    });
  await until("it to be in view", isInView);
  await narrow.context().close();
});

test("a user sees only theirs, and nothing to change", async () => {
  const ann = await lab.visit("/");
  await lab.signIn(ann, "ann@test.invalid", PASSWORD);
  await ann.getByRole("heading", { name: "No images for you yet" }).waitFor();
  // The admin allows the domain the registry: the images appear, with no means to act on them.
  await page.goto(`${lab.url}/access/domains`);
  await page.getByRole("button", { name: "Edit biology" }).click();
  const dialog = page.getByRole("dialog", { name: "Edit biology" });
  await dialog.getByLabel(lab.host).check();
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
  await ann.reload();
  await until("two rows", async () => (await ann.locator("tbody tr").count()) === 2);
  assert.equal(await ann.getByRole("checkbox").count(), 0);
  for (const name of ["Presence", "Agents", "Registries", "Tasks", "Audit log"])
    assert.equal(await ann.getByRole("link", { name, exact: true }).count(), 0, name);
  await ann.getByRole("link", { name: /python/i }).click();
  await ann.getByText("Pull command").waitFor();
  assert.equal(await ann.getByRole("button", { name: "Preload" }).count(), 0);
});

test("an admin looks with a user's eyes, and is told which condition decides", async () => {
  await page.goto(`${lab.url}/access/users`);
  await page.getByRole("button", { name: "View as ann@test.invalid" }).click();
  await page.getByRole("dialog").getByText("Sees 2 images.").waitFor();
  await page.goto(`${lab.url}/images?image=${encodeURIComponent(`${lab.host}/stable/python:3.12 x86_64`)}`);
  await page.getByLabel("User", { exact: true }).fill("ann@test.invalid");
  await page.getByRole("dialog").getByText("Visible", { exact: true }).waitFor();
});

test("a keypair and a token are shown once, and a token is revoked", async () => {
  await page.goto(`${lab.url}/access/keypairs`);
  await page.getByRole("button", { name: "Make a keypair" }).click();
  const dialog = page.getByRole("dialog", { name: "Make a keypair" });
  await dialog.getByLabel("E-mail address").fill("ann@test.invalid");
  await dialog.getByRole("button", { name: "Make a keypair" }).click();
  await page.getByRole("dialog", { name: "The new keypair" }).getByText("Secret key").waitFor();
  await page.getByRole("button", { name: "I have kept it" }).click();
  await page.goto(`${lab.url}/access/tokens`);
  await page.getByRole("button", { name: "Make a token" }).click();
  const token = page.getByRole("dialog", { name: "Make a token" });
  await token.getByLabel("Name", { exact: true }).fill("ci");
  await token.getByRole("button", { name: "Make a token" }).click();
  await page.getByRole("dialog", { name: "The new token" }).getByText("wharf_").waitFor();
  await page.getByRole("button", { name: "I have kept it" }).click();
  await page.getByRole("button", { name: "Revoke ci" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("heading", { name: "Nothing here yet" }).waitFor();
});
