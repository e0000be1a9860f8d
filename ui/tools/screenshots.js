// Every page at two widths in two themes, from a lab of its own: make screenshots. Some are the README's.

import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { THEMES, WIDTHS, inhabit, open, pages } from "../tests/pages.js";
import { Lab } from "../tests/support.js";

/** What the README shows, by its name there. */
const SHOWN = { images: "images", presence: "presence-chosen", preload: "preload" };
const folder = process.argv[2] ?? join(import.meta.dirname, "../../target/screenshots");
mkdirSync(folder, { recursive: true });
const [lab, fresh] = [await Lab.start({ agents: 12 }), await Lab.start({ isNew: true })];
try {
  await inhabit(lab, await lab.admin("/"));
  for (const width of WIDTHS) {
    for (const colorScheme of THEMES) {
      const options = { colorScheme, reducedMotion: "reduce", viewport: { width, height: width > 600 ? 900 : 844 } };
      const save = (page, name) => page.screenshot({ path: join(folder, `${name}-${width}-${colorScheme}.png`) });
      const page = await lab.visit("/", options);
      await page.getByLabel("Password").waitFor();
      await save(page, "sign-in");
      await lab.signIn(page);
      for (const [name, one] of Object.entries(pages())) {
        await open(lab, page, one);
        await save(page, name);
      }
      await page.context().close();
      const first = await fresh.visit(fresh.setUpLink.slice(fresh.url.length), options);
      await first.getByLabel("Password again").waitFor();
      await save(first, "set-up");
      await first.context().close();
    }
  }
} finally {
  await Promise.all([lab.close(), fresh.close()]);
}
const shown = join(import.meta.dirname, "../../docs/images");
mkdirSync(shown, { recursive: true });
for (const [name, page] of Object.entries(SHOWN))
  copyFileSync(join(folder, `${page}-${WIDTHS[0]}-${THEMES[0]}.png`), join(shown, `${name}.png`));
console.log(folder);
