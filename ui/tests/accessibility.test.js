import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { THEMES, WIDTHS, inhabit, open, pages } from "./pages.js";
import { Lab } from "./support.js";

const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
/** GraphiQL is another project's; its insides are not ours to judge. */
const FOREIGN = [".graphiql-container"];

let lab;
before(async () => {
  lab = await Lab.start({ agents: 12 });
  await inhabit(lab, await lab.admin("/"));
});
after(() => lab?.close());

async function judge(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate((exclude) => window.axe.run({ exclude }), FOREIGN);
  return violations.map(
    ({ id, nodes }) =>
      `${id}: ${nodes
        .map((node) => `${node.target} ${node.any[0]?.message ?? ""}`)
        .slice(0, 3)
        .join("; ")}`,
  );
}

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
