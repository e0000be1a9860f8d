import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { judge } from "./axe.js";
import { THEMES, WIDTHS } from "./pages.js";
import { Lab } from "./support.js";

let lab;
before(async () => {
  lab = await Lab.start({ isNew: true });
});
after(() => lab?.close());

const path = (link) => link.slice(lab.url.length);
async function fill(page, email, password, again = password) {
  await page.getByLabel("E-mail address").fill(email);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByLabel("Password again").fill(again);
  await page.getByRole("button", { name: "Make the account" }).click();
}

test("the page has no fault that axe knows of, and fits every window", async () => {
  for (const colorScheme of THEMES) {
    for (const width of WIDTHS) {
      for (const at of ["/", path(lab.setUpLink)]) {
        const page = await lab.visit(at, { colorScheme, viewport: { width, height: 900 } });
        await page.getByLabel("Password again").waitFor();
        assert.deepEqual(await judge(page), [], `${at}, ${colorScheme}, ${width} px`);
        const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(inner <= outer, `${inner} px wide in a window of ${outer}`);
        await page.context().close();
      }
    }
  }
});

test("the server's link makes the first super-admin once, shows the keys once, and signs in", async () => {
  const stranger = await lab.visit("/images");
  await stranger.getByText("There is no account yet").waitFor();
  await stranger.getByLabel("Set-up token").fill("guessed");
  await fill(stranger, "thief@lab.example", "a password of theirs");
  await stranger.getByRole("alert").getByText("this link is not the one").waitFor();

  const old = lab.setUpLink;
  await lab.kill();
  await lab.serve();
  assert.notEqual(lab.setUpLink, old);
  const late = await lab.visit(path(old));
  await fill(late, "late@lab.example", "a password of theirs");
  await late.getByRole("alert").getByText("this link is not the one").waitFor();

  const page = await lab.visit(path(lab.setUpLink));
  assert.equal(await page.getByLabel("Set-up token").count(), 0, "the link has it");
  await fill(page, "ann@lab.example", "correct horse", "correct hors");
  await page.getByRole("alert").getByText("not the same").waitFor();
  await fill(page, "ann@lab.example", "correct horse");
  await page.getByRole("heading", { name: "You are the super-admin" }).waitFor();
  assert.deepEqual(await judge(page), []);
  const shown = await page.locator("dl.facts").innerText();
  assert.match(shown, /[A-Z2-7]{20}/);
  assert.match(shown, /[\w-]{40}/);
  assert.ok(!page.url().includes("token"), page.url());
  await page.getByRole("button", { name: "Go on: add a registry" }).click();
  await page.getByRole("heading", { name: "Registries", level: 1 }).waitFor();
  await page.getByText("ann@lab.example").waitFor();

  // Nothing of it works twice, and nobody is asked to make an account any more.
  const used = await lab.visit(path(lab.setUpLink));
  await used.getByRole("heading", { name: "Sign in to wharf" }).waitFor();
  await lab.signIn(used, "ann@lab.example", "correct horse");
  const answer = await page.evaluate(
    async (token) => {
      const headers = { "Content-Type": "application/json" };
      const body = JSON.stringify({ token, email: "eve@lab.example", password: "another password" });
      return (await fetch("/server/setup", { method: "POST", headers, body })).status;
    },
    new URLSearchParams(new URL(lab.setUpLink).hash.slice(1)).get("token"),
  );
  assert.equal(answer, 400);
});
