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
