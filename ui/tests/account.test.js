import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab, PASSWORD, until } from "./support.js";

const FIRST = "planted-password-of-ann";
const SECOND = "another planted password";
let lab;
let admin;
before(async () => {
  lab = await Lab.start();
  admin = await lab.admin("/images");
  for (const name of ["ann", "bob", "cy"]) {
    const email = `${name}@test.invalid`;
    const props = { username: email, full_name: `${name} of the tests`, password: FIRST, domain_name: "default" };
    const { create_user } = await lab.ask(
      admin,
      "mutation($email: String!, $props: UserInput!) { create_user(email: $email, props: $props) { ok msg } }",
      { email, props: { ...props, need_password_change: name === "ann" } },
    );
    assert.ok(create_user.ok, create_user.msg);
  }
});
after(() => lab?.close());

/** A plain user, signed in, on the page of the account. */
async function account(name, password = FIRST) {
  const page = await lab.visit("/account");
  await lab.signIn(page, `${name}@test.invalid`, password);
  await page.getByRole("heading", { level: 1, name: "Your account" }).waitFor();
  return page;
}

async function change(page, old, fresh, again = fresh) {
  await page.getByLabel("Old password").fill(old);
  await page.getByLabel("New password", { exact: true }).fill(fresh);
  await page.getByLabel("New password again").fill(again);
  await page.getByRole("button", { name: "Change the password" }).click();
}

test("whoever is signed in is told who they are, one press from every page", async () => {
  const page = await lab.visit("/images");
  await lab.signIn(page, "ann@test.invalid", FIRST);
  await page.getByRole("link", { name: /ann@test\.invalid/ }).click();
  const who = page.getByRole("region", { name: "Who you are" });
  await who.getByText("ann of the tests").waitFor();
  const told = await who.innerText();
  for (const part of ["ann@test.invalid", "user", "default"]) assert.ok(told.includes(part), `${part} in ${told}`);
  const [key] = /[A-Z2-7]{20}/.exec(told) ?? assert.fail(`no access key in ${told}`);
  await page.getByText("You are asked to choose another password").waitFor();
  await who.getByRole("link", { name: "All keypairs" }).click();
  await page.getByRole("table", { name: "Keypairs" }).getByText(key).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("m");
  await page.getByRole("heading", { level: 1, name: "Your account" }).waitFor();
});

test("another password ends the session of another browser, and is the one that is taken from then on", async () => {
  const [page, other] = [await account("ann"), await lab.visit("/images")];
  await lab.signIn(other, "ann@test.invalid", FIRST);
  await change(page, FIRST, SECOND);
  await page.getByRole("status").getByText("Your password is changed").waitFor();
  await page.getByText("You are asked to choose another password").waitFor({ state: "detached" });
  assert.equal(await page.getByLabel("Old password").inputValue(), "", "nothing of it stays on the page");

  await other.getByLabel("Search images").fill("python");
  const again = other.getByRole("dialog", { name: "Sign in again" });
  await again.getByLabel("Password").fill(FIRST);
  await again.getByRole("button", { name: "Sign in" }).click();
  await again.getByRole("alert").waitFor();
  await again.getByLabel("Password").fill(SECOND);
  await again.getByRole("button", { name: "Sign in" }).click();
  await again.waitFor({ state: "detached" });
  await other.reload();
  await other.getByRole("heading", { level: 1, name: "Images" }).waitFor();
  // The one in which it was changed goes on.
  await page.reload();
  await page.getByRole("heading", { level: 1, name: "Your account" }).waitFor();
});

test("a super-admin's other pages show by themselves that their session has ended", async () => {
  const other = await lab.admin("/registries");
  await admin.goto(`${lab.url}/account`);
  await change(admin, PASSWORD, SECOND);
  await admin.getByRole("status").getByText("Your password is changed").waitFor();
  const again = other.getByRole("dialog", { name: "Sign in again" });
  await again.getByLabel("Password").fill(SECOND);
  await again.getByRole("button", { name: "Sign in" }).click();
  await again.waitFor({ state: "detached" });
  await other.close();
  await change(admin, SECOND, PASSWORD);
  await until("it to be back", async () => (await admin.getByLabel("Old password").inputValue()) === "");
});

test("what is wrong with a new password is said, with what to do, and the field is gone to", async () => {
  const page = await account("bob");
  const alert = page.getByRole("region", { name: "Password", exact: true }).getByRole("alert");
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("name"));
  for (const [old, fresh, again, said, at] of [
    [FIRST, "short", "short", "it takes at least 8 characters", "fresh"],
    [FIRST, "é".repeat(600), "é".repeat(600), "it takes at most 1024 bytes", "fresh"],
    [FIRST, SECOND, `${SECOND}!`, "are not the same", "again"],
    [FIRST, FIRST, FIRST, "Choose another", "fresh"],
    ["not the old one", SECOND, SECOND, "The old password is not right", "old"],
  ]) {
    await change(page, old, fresh, again);
    await alert.getByText(said).waitFor();
    await until(`the focus in ${at}`, async () => (await focused()) === at);
  }
  // None of it changed anything.
  const fresh = await lab.visit("/");
  await lab.signIn(fresh, "bob@test.invalid", FIRST);
});

test("whoever guesses the old password is made to wait, and is told for how long", async () => {
  const page = await account("cy");
  const alert = page.getByRole("region", { name: "Password", exact: true }).getByRole("alert");
  // The wait doubles, so however slow the tries are, one of them comes too early.
  const isTold = async () => {
    await change(page, "a guess", SECOND);
    await page.getByRole("button", { name: "Change the password" }).waitFor();
    return /Too many attempts\. Wait \d+ seconds? and try again/.test(await alert.innerText());
  };
  await until("the wait", isTold);
  assert.equal(
    await page.getByLabel("New password", { exact: true }).inputValue(),
    SECOND,
    "it need not be typed anew",
  );
});

test("sessions are listed; the others end, or all of them", async () => {
  const [page, other] = [await account("bob"), await account("bob")];
  await page.reload();
  const list = page.getByRole("region", { name: "Where you are signed in" });
  const count = () => list.getByRole("row").count();
  await until("all of them", async () => (await count()) >= 3);
  assert.equal(await list.getByText("this session").count(), 1);
  await list.getByRole("button", { name: "End the others" }).click();
  const question = page.getByRole("dialog", { name: "End your other sessions?" });
  await question.getByRole("listitem").first().waitFor();
  assert.ok((await question.getByRole("listitem").allInnerTexts()).every((item) => item.includes("From 127.0.0.1")));
  await question.getByRole("button", { name: "End the others" }).click();
  await until("one", async () => (await count()) === 2);
  await list.getByRole("button", { name: "End the others" }).waitFor({ state: "detached" });
  await other.reload();
  await other.getByRole("button", { name: "Sign in" }).waitFor();

  const third = await account("bob");
  await list.getByRole("button", { name: "Sign out everywhere" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Sign out everywhere" }).click();
  await page.getByRole("heading", { name: "Sign in to wharf" }).waitFor();
  await third.reload();
  await third.getByRole("button", { name: "Sign in" }).waitFor();
});

test("a plain user makes a token that works, and revokes it", async () => {
  const page = await account("bob");
  await page.getByRole("button", { name: "Make a token" }).click();
  const dialog = page.getByRole("dialog", { name: "Make a token" });
  await dialog.getByLabel("Name", { exact: true }).fill("notebook");
  await dialog.getByRole("button", { name: "Make a token" }).click();
  const shown = page.getByRole("dialog", { name: "The new token" });
  const token = await shown.getByText("wharf_").innerText();
  await shown.getByRole("button", { name: "I have kept it" }).click();
  const isTaken = async () => {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const answer = await fetch(`${lab.url}/graphql`, {
      method: "POST",
      headers,
      body: '{"query":"{ user { email } }"}',
    });
    return answer.ok && (await answer.json()).data.user.email;
  };
  assert.equal(await isTaken(), "bob@test.invalid");
  await page.getByRole("button", { name: "Revoke notebook" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("region", { name: "Your API tokens" }).getByText("Nothing here yet").waitFor();
  assert.equal(await isTaken(), false);
});
