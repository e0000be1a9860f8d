// What Lighthouse says of the sign-in page and of the images, and how soon they can be used: make lighthouse, which
// fetches Lighthouse itself, since nothing else has a use for it.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { stock } from "../tests/pages.js";
import { BROWSER, FLAGS, Lab, freePort } from "../tests/support.js";

const LIGHTHOUSE =
  process.env.LIGHTHOUSE ?? join(import.meta.dirname, "../../target/lighthouse/node_modules/lighthouse");
const CATEGORIES = ["performance", "accessibility", "best-practices"];
/** The goals: points of a hundred, milliseconds, bytes on the wire. */
const LEAST = 95;
const MOST_INTERACTIVE = 1_000;
const MOST_BYTES = 200 * 1024;

const { default: lighthouse, desktopConfig } = await import(pathToFileURL(join(LIGHTHOUSE, "core/index.js")).href);
const line = (what, value, verdict) => console.log(`  ${what.padEnd(58)} ${value.padStart(12)}   ${verdict}`);
const judged = (isMet, goal) => `${goal}: ${isMet ? "ok" : "MISSED"}`;

const lab = await Lab.start();
const port = await freePort();
const browser = await chromium.launch({
  executablePath: BROWSER,
  args: [...FLAGS, `--remote-debugging-port=${port}`],
});
try {
  await stock(lab);
  const page = await lab.admin("/images");
  await lab.fill(page);
  const [cookie] = await page.context().cookies();
  const signedIn = { Cookie: `${cookie.name}=${cookie.value}` };
  for (const [name, path, extraHeaders] of [
    ["sign-in", "/", {}],
    ["images", "/images", signedIn],
  ]) {
    for (const [machine, config, isPlain] of [
      ["a slow phone, simulated", undefined, false],
      ["a desktop, simulated", desktopConfig, false],
      ["this machine as it is", desktopConfig, true],
    ]) {
      const flags = { port, onlyCategories: CATEGORIES, extraHeaders, logLevel: "error" };
      const { lhr } = await lighthouse(
        lab.url + path,
        isPlain ? { ...flags, throttlingMethod: "provided" } : flags,
        config,
      );
      console.log(`\n${name}, ${machine}`);
      for (const category of CATEGORIES) {
        const score = Math.round(lhr.categories[category].score * 100);
        line(category, String(score), judged(score >= LEAST, `at least ${LEAST}`));
        if (score >= LEAST) continue;
        for (const { id } of lhr.categories[category].auditRefs) {
          const audit = lhr.audits[id];
          if (audit.score !== null && audit.score < 0.9)
            console.log(`    ${id}: ${audit.displayValue ?? audit.title}`);
        }
      }
      const interactive = lhr.audits.interactive.numericValue;
      line(
        "interactive",
        `${interactive.toFixed(0)} ms`,
        isPlain ? judged(interactive < MOST_INTERACTIVE, "under 1 s") : "",
      );
      const bytes = lhr.audits["total-byte-weight"].numericValue;
      line("on the wire", `${(bytes / 1024).toFixed(1)} KiB`, judged(bytes < MOST_BYTES, "under 200 KiB"));
    }
  }
} finally {
  await browser.close();
  await lab.close();
}
