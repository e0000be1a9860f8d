// Every page, and what a lab has on them; for the screenshots and for the accessibility test.

export const WIDTHS = [1440, 390];
export const THEMES = ["light", "dark"];

const labels = (more = {}) => ({
  "ai.backend.kernelspec": "1",
  "ai.backend.resource.min.cpu": "1",
  "ai.backend.resource.min.mem": "256m",
  ...more,
});
const cuda = labels({ "ai.backend.accelerators": "cuda", "ai.backend.resource.min.cuda.device": "1" });

/** Images as a teaching lab has them. */
export async function stock(lab) {
  for (const version of ["3.9", "3.10", "3.11", "3.12"]) {
    await lab.push("stable/python", `${version}-ubuntu22.04`, { labels: labels(), bytes: 400_000 });
    await lab.push("stable/python", `${version}-ubuntu22.04-cuda12.2`, { labels: cuda, bytes: 900_000 });
  }
  for (const version of ["2.12", "2.15", "2.17"])
    await lab.push("stable/tensorflow", `${version}-py311-cuda12.2`, { labels: cuda, bytes: 900_000, layers: 2 });
  for (const version of ["2.1", "2.3"])
    await lab.push("stable/pytorch", `${version}-py311-cuda12.2`, { labels: cuda, bytes: 900_000 });
  for (const version of ["4.3", "4.4"])
    await lab.push("stable/r-base", `${version}-debian12`, { labels: labels(), bytes: 300_000 });
  for (const version of ["3.19", "3.20"])
    await lab.push("library/alpine", version, { architectures: ["amd64", "arm64"], bytes: 40_000 });
  for (const name of ["vision", "genomics", "robotics"])
    await lab.push(`lab/${name}/notebook`, "2026.1", { labels: labels(), bytes: 200_000 });
}

/** A lab in which something has happened: images loaded, one of them moved on, a task at work, an agent lost. */
export async function inhabit(lab, page) {
  await stock(lab);
  await lab.fill(page);
  const preload = async (reference, agents) => {
    const { preload_image } = await lab.ask(
      page,
      "mutation($r: String!, $a: String!) { preload_image(reference: $r, target_agents: $a) { ok msg task_id } }",
      { r: reference, a: agents },
    );
    if (!preload_image.ok) throw new Error(preload_image.msg);
    return preload_image.task_id;
  };
  const end = async (id) => {
    for (;;) {
      const { background_task } = await lab.ask(page, "query($id: String!) { background_task(id: $id) { state } }", {
        id,
      });
      if (background_task.state !== "started") return;
    }
  };
  await Promise.all(
    [
      ["stable/python:3.11-ubuntu22.04", "*"],
      ["stable/python:3.12-ubuntu22.04-cuda12.2", "i-gpu[01-08]"],
      ["stable/tensorflow:2.15-py311-cuda12.2", "i-gpu[02-12/2]"],
      ["stable/pytorch:2.3-py311-cuda12.2", "i-gpu[05-12]"],
      ["stable/r-base:4.4-debian12", "i-gpu[01-03]"],
      ["lab/vision/notebook:2026.1", "i-gpu[09-12]"],
    ].map(async ([reference, agents]) => end(await preload(reference, agents))),
  );
  // The registry has moved on; the agents have not.
  await lab.push("lab/vision/notebook", "2026.1", { labels: labels(), bytes: 210_000, content: "newer" });
  await lab.scan(page);
  await lab.ask(page, 'mutation { alias_image(alias: "py", target: "stable/python:3.11-ubuntu22.04") { ok } }');
  for (const [id, zone] of [
    ["i-gpu01", "a"],
    ["i-gpu02", "b"],
  ]) {
    await lab.ask(
      page,
      'mutation($id: String!, $zone: String!) { modify_agent(id: $id, props: {labels: [{key: "zone", value: $zone}]}) { ok } }',
      { id, zone },
    );
  }
  await lab.engines[11].stop();
  for (const engine of lab.engines) engine.slowness = 3_600_000;
  await preload("stable/tensorflow:2.17-py311-cuda12.2", "i-gpu[01-06]");
}

/** The pages by name: the address, and what is done there before it is looked at. */
export function pages(lab) {
  const image = encodeURIComponent(`${lab.host}/stable/python:3.11-ubuntu22.04 x86_64`);
  return {
    images: { path: "/images" },
    image: {
      path: `/images?image=${image}`,
      act: (page) => page.getByRole("heading", { name: "Where it is" }).waitFor(),
    },
    preload: {
      path: `/images?image=${image}`,
      act: async (page) => {
        await page.getByRole("dialog").getByRole("button", { name: "Preload", exact: true }).first().click();
        const dialog = page.getByRole("dialog", { name: "Preload an image" });
        await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu[01-12]!i-gpu03");
        await dialog.getByText("to fetch in all").waitFor();
      },
    },
    presence: { path: "/presence", act: (page) => page.getByRole("gridcell").first().waitFor() },
    agents: { path: "/agents" },
    agent: {
      path: "/agents?agent=i-gpu01",
      act: (page) => page.getByRole("dialog").getByText("present").first().waitFor(),
    },
    registries: { path: "/registries", act: (page) => page.getByText("Ledger").waitFor() },
    "registry-form": { path: "/registries?add=1", act: (page) => page.getByRole("dialog").waitFor() },
    tasks: { path: "/tasks", act: (page) => page.getByRole("region", { name: "Running" }).waitFor() },
    task: {
      path: "/tasks",
      act: async (page) => {
        await page.getByRole("region", { name: "Running" }).getByRole("link").click();
        await page.getByRole("heading", { name: "Items" }).waitFor();
      },
    },
    domains: { path: "/access/domains" },
    groups: { path: "/access/groups" },
    "scaling-groups": { path: "/access/scaling-groups" },
    users: { path: "/access/users" },
    keypairs: { path: "/access/keypairs" },
    tokens: { path: "/access/tokens" },
    audit: { path: "/audit", act: (page) => page.getByRole("row").nth(1).waitFor() },
    api: { path: "/api", act: (page) => page.locator(".graphiql-container").waitFor() },
    help: {
      path: "/images",
      act: async (page) => {
        await page.getByRole("row").nth(1).waitFor();
        await page.keyboard.press("?");
        await page.getByRole("dialog").waitFor();
      },
    },
  };
}

/** Goes to a page and waits until it is still. */
export async function open(lab, page, { path, act }) {
  await page.goto(lab.url + path);
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.getByText("Loading…").first().waitFor({ state: "detached" });
  await act?.(page);
  await page.evaluate(() =>
    Promise.allSettled(
      document
        .getAnimations()
        .filter((one) => one.effect?.getTiming().iterations !== Infinity)
        .map((one) => one.finished),
    ),
  );
}
