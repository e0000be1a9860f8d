// How fast the list of images is with 100,000 of them, measured in the page: make ui-bench.
//
// A registry in memory answers for so many tags, wharf reads them as it reads any, and a browser types and turns pages.

import { registry } from "../tests/registry.js";
import { Lab, until } from "../tests/support.js";
import { held, line, middle, ms } from "./report.js";

const REPOSITORIES = 1_000;
const TAGS = 100;
const WORDS = ["tensor", "cuda11.3", "python-0421", "2.42-py39", "flow-09 2.7-"];
/** A scan of so much takes minutes on a busy machine. */
const PATIENCE = 900_000;
/** The goal: from the answer to the painted rows. */
const MOST_REPAINT = 100;

/** In the page: when an answer for the table was there, and when what came of it was painted. */
function watch() {
  window.speed = [];
  const fetched = window.fetch;
  window.fetch = async (path, options) => {
    const isTable = String(options?.body ?? "").includes("query Images(");
    const asked = performance.now();
    const answer = await fetched(path, options);
    if (!isTable) return answer;
    const read = answer.json.bind(answer);
    answer.json = async () => {
      const body = await read();
      const answered = performance.now();
      const { port1, port2 } = new MessageChannel();
      const painted = () => {
        window.speed.push({ answer: answered - asked, repaint: performance.now() - answered });
      };
      port1.onmessage = painted;
      // A message sent in the frame's last callback arrives after it was painted.
      requestAnimationFrame(() => requestAnimationFrame(() => port2.postMessage(null)));
      return body;
    };
    return answer;
  };
}

const stock = await registry(REPOSITORIES, TAGS);
const lab = await Lab.start();
try {
  const page = await lab.admin("/registries");
  lab.host = stock.host;
  const started = performance.now();
  await lab.fill(page, lab.host, PATIENCE);
  console.log(`\nimages page: ${(REPOSITORIES * TAGS).toLocaleString("en")} images`);
  line("reading them all from the registry, on the way", `${((performance.now() - started) / 1_000).toFixed(0)} s`);

  await page.context().addInitScript(watch);
  const opened = performance.now();
  await page.goto(`${lab.url}/images`);
  await page.getByText(/^1–50 of 100,000$/).waitFor();
  line("opening the page, until the first rows are there", ms(performance.now() - opened));
  const taken = async (act) => {
    const before = await page.evaluate(() => window.speed.length);
    await act();
    await until("a repaint", () => page.evaluate((before) => window.speed.length > before, before));
    return page.evaluate((before) => window.speed.slice(before), before);
  };
  const report = async (what, times) => {
    line(`${what}: the answer, median of ${times.length}`, ms(middle(times.map(({ answer }) => answer))));
    line(`${what}: from the answer to the paint, median`, ms(middle(times.map(({ repaint }) => repaint))));
    held(
      `${what}: from the answer to the paint, the longest`,
      Math.max(...times.map(({ repaint }) => repaint)),
      MOST_REPAINT,
    );
  };
  const search = page.getByLabel("Search images");
  const typed = [];
  for (const word of WORDS) {
    for (const letter of word) {
      // A space alone asks for nothing else than before.
      if (letter === " ") await search.press("Space");
      else typed.push(...(await taken(() => search.press(letter))));
    }
    await taken(() => search.fill(""));
  }
  await report("typing", typed);
  const ordered = [];
  for (const name of ["Size", "Size", "Architecture", "Image"])
    ordered.push(...(await taken(() => page.getByRole("button", { name }).click())));
  await report("ordering", ordered);
  const turned = [];
  for (let turn = 0; turn < 10; turn += 1)
    turned.push(...(await taken(() => page.getByRole("button", { name: "Next page" }).click())));
  await report("turning the page", turned);
  line("elements on the page", String(await page.evaluate(() => document.querySelectorAll("*").length)));
} finally {
  await lab.close();
  stock.close();
}
