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

for (const colorScheme of THEMES) {
  for (const width of WIDTHS) {
    test(`no page has a fault that axe knows of: ${colorScheme}, ${width} px`, async () => {
      const options = { colorScheme, reducedMotion: "reduce", viewport: { width, height: 900 } };
      const door = await lab.visit("/", options);
      await door.getByLabel("Password").waitFor();
      assert.deepEqual(await judge(door), [], "sign-in");
      const page = await lab.visit("/", options);
      await page.getByLabel("Password").waitFor();
      await lab.signIn(page);
      for (const [name, one] of Object.entries(pages(lab))) {
        await open(lab, page, one);
        assert.deepEqual(await judge(page), [], name);
        const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(inner <= outer, `${name} is ${inner} px wide in a window of ${outer}`);
      }
    });
  }
}
