// How the matrix of presence does with 200 agents and 500 images, measured in the page: make ui-bench.
//
// Each agent is a small server that speaks Docker's API and holds what it is told to; wharf reads them as it reads any.

import { registry } from "../tests/registry.js";
import { Lab, until } from "../tests/support.js";
import { held, line, middle, ms } from "./report.js";

const AGENTS = 200;
const REPOSITORIES = 50;
const TAGS = 10;
/** The goals: from the address to the painted cells, and from a press to what it shows. */
const MOST_OPEN = 1_000;
const MOST_PRESS = 100;
/** A folder for what it looked like, for whoever wants to see. */
const SHOTS = process.env.SHOTS;

/** In the page: when the first cells were painted, what kept it from answering, and how long frames took. */
function watch() {
  window.tasks = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.tasks.push(entry.duration);
  }).observe({ type: "longtask", buffered: true });
  const painted = (then) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => then(performance.now());
    // A message sent in the frame's last callback arrives after it was painted.
    requestAnimationFrame(() => port2.postMessage(null));
  };
  window.painted = () => new Promise(painted);
  const look = () => {
    if (document.querySelector("[role=gridcell].p")) painted((at) => (window.first = at));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  /** From each press of a button or a key to the frame that shows what came of it. */
  window.presses = [];
  for (const kind of ["click", "keydown"])
    window.addEventListener(
      kind,
      (event) => {
        if (event.key !== "Shift" && event.key !== "Control")
          painted((at) => window.presses.push(at - event.timeStamp));
      },
      { capture: true },
    );
  window.frames = null;
  const tick = (now) => {
    if (window.frames) window.frames.push(now);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

const stock = await registry(REPOSITORIES, TAGS);
const lab = await Lab.start({ agents: AGENTS });
try {
  lab.host = stock.host;
  const page = await lab.admin("/registries");
  await lab.fill(page, lab.host);
  // Three in four have an image; one in ten of those has an older one of that name. The server reads it all as it starts.
  for (const [place, engine] of lab.engines.entries()) {
    for (const [number, { name, tag, config }] of stock.images.entries()) {
      const draw = (place * 31 + number * 17 + ((place * number) % 7)) % 40;
      if (draw < 30) engine.hold(`${stock.host}/${name}:${tag}`, draw < 3 ? config.replace(/.{4}$/, "0000") : config);
    }
  }
  await lab.kill();
  await lab.serve();
  await until("all agents to have been read", async () => {
    const { agents } = await lab.ask(page, "{ agents { status } }");
    return agents.filter((one) => one.status === "ALIVE").length === AGENTS;
  });
  console.log(`\npresence: ${stock.images.length} images on ${AGENTS} agents`);
  const shot = async (name) => SHOTS && page.screenshot({ path: `${SHOTS}/matrix-${name}.png` });
  await page.context().addInitScript(watch);
  const opened = [];
  const tasks = [];
  for (let round = 0; round < 5; round += 1) {
    await page.goto(`${lab.url}/presence`);
    await page.waitForFunction(() => window.first);
    opened.push(await page.evaluate(() => window.first));
    tasks.push(await page.evaluate(() => Math.max(0, ...window.tasks)));
  }
  held("opening the page, until cells are painted, median of 5", middle(opened), MOST_OPEN);
  line("the longest task meanwhile, median", ms(middle(tasks)));
  await shot("first");

  const grid = page.getByRole("grid");
  const box = await grid.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  /** Does something for a while, and says how the frames were meanwhile. */
  const watched = async (what, act) => {
    await page.evaluate(() => {
      window.tasks = [];
      window.frames = [];
    });
    await act();
    await page.evaluate(() => window.painted());
    const { frames, tasks } = await page.evaluate(() => ({ frames: window.frames, tasks: window.tasks }));
    const took = frames.slice(1).map((at, place) => at - frames[place]);
    line(`${what}: frames, median of ${took.length}`, ms(middle(took)));
    line(`${what}: frames, the longest`, ms(Math.max(...took)));
    line(`${what}: the longest task`, ms(Math.max(0, ...tasks)));
  };
  const wheel = async (x, y, times) => {
    for (let turn = 0; turn < times; turn += 1) {
      await page.mouse.wheel(x, y);
      await page.evaluate(() => window.painted());
    }
  };
  await watched("scrolling down", () => wheel(0, 120, 100));
  await shot("down");
  await watched("scrolling right", () => wheel(120, 0, 30));
  await shot("right");
  await watched("scrolling up", () => wheel(0, -120, 100));
  await grid.evaluate((one) => one.scrollTo(0, 0));
  const started = performance.now();
  await grid.evaluate((one) => one.scrollTo(0, one.scrollHeight));
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll("[role=row]")];
    return rows.at(-1)?.getAttribute("aria-rowindex") === "501" && rows.at(-1).querySelector(".p, .s, .a");
  });
  line("jumping to the end, until it is there", ms(performance.now() - started));
  await grid.evaluate((one) => one.scrollTo(0, 0));

  const cell = async (row, column) => {
    const found = page.locator(`[aria-rowindex="${row}"] [aria-colindex="${column}"]`);
    await found.waitFor();
    const { x, y, width, height } = await found.boundingBox();
    return [x + width / 2, y + height / 2];
  };
  const pressed = async (what, act) => {
    // What was pressed before is painted first.
    await page.evaluate(() => window.painted().then(() => (window.presses = [])));
    for (const [place, one] of act.entries()) {
      await one();
      await page.waitForFunction((place) => window.presses.length > place, place);
    }
    const times = await page.evaluate(() => window.presses);
    held(`${what}: the longest of ${times.length}`, Math.max(...times), MOST_PRESS);
  };
  const [from, to] = [await cell(4, 4), await cell(14, 22)];
  await watched("dragging over 11 x 19 cells", async () => {
    await page.mouse.move(...from);
    await page.mouse.down();
    await page.mouse.move(...to, { steps: 60 });
    await page.mouse.up();
  });
  await shot("dragged");
  const heads = page.getByRole("columnheader").getByRole("button");
  await pressed(
    "an agent with all images, press to paint",
    [1, 5, 9].map((place) => () => heads.nth(place).click()),
  );
  await shot("column");
  await pressed(
    "an image on all agents, press to paint",
    [3, 5, 7].map((row) => () => page.getByRole("rowheader").nth(row).getByRole("button").click()),
  );
  await grid.focus();
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("Space");
  await pressed(
    "keys, press to paint",
    [
      "Shift+ArrowDown",
      "Shift+PageDown",
      "Shift+PageDown",
      "Shift+End",
      "ArrowLeft",
      "Control+End",
      "Control+Home",
    ].map((key) => () => page.keyboard.press(key)),
  );
  await shot("chosen");
  line("elements on the page", String(await page.evaluate(() => document.querySelectorAll("*").length)));
  await page.getByRole("toolbar").getByRole("button", { name: "Preload" }).click();
  const asked = performance.now();
  await page.getByRole("dialog").getByText("to fetch at most").waitFor();
  line("the plan of a preload of what is chosen", ms(performance.now() - asked));
  await shot("plan");
} finally {
  await lab.close();
  stock.close();
}
