import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab } from "./support.js";

let lab;
before(async () => (lab = await Lab.start()));
after(() => lab?.close());

test("a wrong password is told, and the right one lets in", async () => {
  const page = await lab.visit("/");
  // By keys alone, letter by letter, as people do.
  await page.locator("input:focus").waitFor();
  await page.keyboard.type("admin@test.invalid");
  await page.keyboard.press("Tab");
  await page.keyboard.type("wrong");
  assert.equal(await page.getByLabel("E-mail address").inputValue(), "admin@test.invalid");
  assert.equal(await page.getByLabel("Password").inputValue(), "wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  await lab.signIn(page);
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
});

test("a session that ended asks for the password over the page, and goes on where it was", async () => {
  const page = await lab.admin("/registries");
  await page.getByRole("button", { name: "Add a registry" }).first().click();
  await page.getByLabel("Host", { exact: true }).fill("cr.example.org");
  await page.context().clearCookies();
  // Whether this is the first to meet it, or what the page asks by itself.
  await page.getByLabel("Host", { exact: true }).evaluate((field) => field.form.requestSubmit());
  const again = page.getByRole("dialog", { name: "Sign in again" });
  await again.getByLabel("Password").fill("planted-password-of-the-admin");
  await again.getByRole("button", { name: "Sign in" }).click();
  await again.waitFor({ state: "detached" });
  assert.equal(await page.getByLabel("Host", { exact: true }).inputValue(), "cr.example.org");
});

test("signing out forgets who it was, in every tab", async () => {
  const page = await lab.admin("/");
  const other = await lab.tab(page, "/tasks");
  await other.getByRole("heading", { name: "Tasks", exact: true }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  // The other tab learns it at its next question.
  await other.getByRole("dialog", { name: "Sign in again" }).waitFor();
});

test("every page is reached by keys, and / and ? do what they say", async () => {
  const page = await lab.admin("/images");
  for (const [key, heading] of [
    ["p", "Presence"],
    ["a", "Agents"],
    ["r", "Registries"],
    ["t", "Tasks"],
    ["l", "Audit log"],
    ["i", "Images"],
  ]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.getByRole("heading", { level: 1, name: heading }).waitFor();
  }
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("aria-label")), "Search images");
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor({ state: "detached" });
});

test("a tab from before an upgrade says so and reloads", async () => {
  const page = await lab.admin("/tasks");
  await page.getByRole("heading", { name: "No tasks yet" }).waitFor();
  await page.waitForResponse((answer) => answer.request().method() === "HEAD");
  // Another build of the script has another tag.
  await page.route("**/app.js", (route) =>
    route.request().method() === "HEAD"
      ? route.fulfill({ status: 200, headers: { etag: '"another"' } })
      : route.continue(),
  );
  const loaded = page.waitForEvent("load");
  await page.getByText("wharf was upgraded").waitFor();
  await loaded;
  await page.getByRole("heading", { name: "No tasks yet" }).waitFor();
});

test("the whole page comes from this server, and its policy forbids anything else", async () => {
  const page = await lab.visit("/");
  const foreign = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(lab.url)) foreign.push(request.url());
  });
  await lab.signIn(page);
  for (const path of ["/images", "/presence", "/api"]) {
    await page.goto(lab.url + path);
    await page.getByRole("heading", { level: 1 }).waitFor();
  }
  await page.locator(".graphiql-container").waitFor();
  assert.deepEqual(foreign, []);
});
