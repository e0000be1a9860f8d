import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { judge } from "./axe.js";
import { THEMES, WIDTHS, inhabit, open, pages } from "./pages.js";
import { Lab } from "./support.js";

let lab;
before(async () => {
  lab = await Lab.start({ agents: 12 });
  await inhabit(lab, await lab.admin("/"));
});
after(() => lab?.close());

// Colours depend on the theme and the layout on the width, so each theme is looked at once, and each width.
for (const [place, colorScheme] of THEMES.entries()) {
  const width = WIDTHS[place];
  test(`no page has a fault that axe knows of: ${colorScheme}, ${width} px`, async () => {
    const options = { colorScheme, reducedMotion: "reduce", viewport: { width, height: 900 } };
    const door = await lab.visit("/", options);
    await door.getByLabel("Password").waitFor();
    assert.deepEqual(await judge(door), [], "sign-in");
    await lab.signIn(door);
    for (const [name, one] of Object.entries(pages())) {
      await open(lab, door, one);
      assert.deepEqual(await judge(door), [], name);
      const tooWide = await door.evaluate(() =>
        [document.documentElement, ...document.querySelectorAll("dialog .body")]
          .filter((one) => one.scrollWidth > one.clientWidth)
          .map((one) => `${one.className || "the page"}: ${one.scrollWidth} px in ${one.clientWidth}`),
      );
      assert.deepEqual({ [name]: tooWide }, { [name]: [] });
    }
  });
}

test("what is typed letter by letter stays in its field, on every page", async () => {
  const kinds = ["text", "search", "email", "password", "url"].map((type) => `input[type=${type}]`);
  const fields = `:is(${kinds.join()}, input:not([type]), textarea):visible:not(.graphiql-container *)`;
  const page = await lab.admin("/");
  const looked = {};
  for (const [name, one] of Object.entries(pages())) {
    await open(lab, page, one);
    // What is behind a dialog can't be typed in.
    const dialog = page.getByRole("dialog");
    const all = ((await dialog.count()) > 0 ? dialog.last() : page.locator("body")).locator(fields);
    looked[name] = await all.count();
    for (let place = 0; place < looked[name]; place += 1) {
      const field = all.nth(place);
      if (!(await field.isEditable())) continue;
      const before = await field.inputValue();
      await field.focus();
      await page.keyboard.press("End");
      await page.keyboard.type("ab1");
      const is = await field.evaluate((one) => ({ value: one.value, isLeft: document.activeElement !== one }));
      assert.deepEqual(is, { value: `${before}ab1`, isLeft: false }, `${name}, field ${place}`);
      for (const _ of "ab1") await page.keyboard.press("Backspace");
    }
  }
  const total = Object.values(looked).reduce((sum, count) => sum + count);
  assert.ok(total > 40, JSON.stringify(looked));
});
