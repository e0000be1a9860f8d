import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Lab } from "./support.js";

let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 1 });
  await lab.push("hostile/labels", "1", {
    labels: {
      "<script>alert(1)</script>": "<img src=x onerror=alert(1)>",
      "rtl\u202egnp": "a\u202eb",
      // As much as the server takes.
      big: "W".repeat(60_000),
      "org.opencontainers.image.title": `\u202e<b>bold</b> ${"W".repeat(300)}`,
    },
  });
  await lab.push("hostile/" + "a".repeat(120), "t".repeat(128));
  page = await lab.admin("/");
  await lab.fill(page);
});
after(() => lab?.close());

/** Nothing is wider than the window, and nobody has spoken. */
async function holds(page, what) {
  const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(inner <= outer, `${what}: ${inner} > ${outer}`);
}

test("what an image says of itself is text, and stays in its place", async () => {
  page.on("dialog", (dialog) => lab.errors.push(`a dialog: ${dialog.message()}`));
  for (const width of [1440, 390]) {
    await page.setViewportSize({ width, height: 900 });
    await page.goto(`${lab.url}/images`);
    await page
      .getByRole("link", { name: /hostile/ })
      .first()
      .waitFor();
    await holds(page, "images");
    await page.goto(`${lab.url}/images?image=${encodeURIComponent(`${lab.host}/hostile/labels:1 x86_64`)}`);
    await page.getByText("<script>alert(1)</script>", { exact: true }).waitFor();
    await page.getByText("<img src=x onerror=alert(1)>", { exact: true }).waitFor();
    await page.getByText("rtl\\u{202e}gnp", { exact: true }).waitFor();
    await holds(page, "drawer");
    const [inner, outer] = await page.evaluate(() => {
      const body = document.querySelector("dialog .body");
      return [body.scrollWidth, body.clientWidth];
    });
    assert.ok(inner <= outer, `the drawer's body: ${inner} > ${outer}`);
    await page.goto(`${lab.url}/presence`);
    await page.getByRole("gridcell").first().waitFor();
    await holds(page, "presence");
  }
  assert.equal(await page.locator("img[src=x]").count(), 0);
});

test("what a registry says of itself is text too", async () => {
  lab.lie = { status: 500, body: { errors: [{ code: "UNKNOWN", message: "<script>alert(1)</script> \u202egnp" }] } };
  await page.setViewportSize({ width: 390, height: 900 });
  await page.goto(`${lab.url}/registries`);
  await page.getByRole("button", { name: `Test the connection to ${lab.host}` }).click();
  const alert = page.getByRole("alert");
  await alert.getByText("The connection failed").waitFor();
  assert.ok(!(await alert.innerText()).includes("\u202e"));
  await holds(page, "registries");
  lab.lie = null;
  await alert.getByRole("button", { name: "Try again" }).click();
  await alert.waitFor({ state: "detached" });
});

test("a search for anything is a search for those very characters", async () => {
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.goto(`${lab.url}/images`);
  for (const text of ['"', "\\", "%", "' | true", "_", 'a" | name == "b']) {
    await page.getByLabel("Search images").fill(text);
    await page.getByRole("heading", { name: "No image fits" }).waitFor();
    assert.equal(await page.getByRole("alert").count(), 0, text);
    await page.getByLabel("Search images").fill("hostile");
    await page
      .getByRole("link", { name: /hostile/ })
      .first()
      .waitFor();
  }
});

test("an expression for agents may be anything", async () => {
  await page.goto(`${lab.url}/images?image=${encodeURIComponent(`${lab.host}/hostile/labels:1 x86_64`)}`);
  await page.getByRole("dialog").getByRole("button", { name: "Preload", exact: true }).first().click();
  const dialog = page.getByRole("dialog", { name: "Preload an image" });
  for (const text of ["<script>", "\u202e", "(".repeat(40), "x".repeat(5_000), "gpu[1-999999999]"]) {
    await dialog.getByRole("textbox", { name: "Agents" }).fill(text);
    await dialog.locator("pre").waitFor();
    await dialog.getByRole("textbox", { name: "Agents" }).fill("*");
    await dialog.getByText("1 agent", { exact: true }).waitFor();
  }
});
