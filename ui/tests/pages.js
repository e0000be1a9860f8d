// Every page, and what a lab has on them; for the screenshots and for the accessibility test.

import { PASSWORD, until } from "./support.js";
export const WIDTHS = [1440, 390];
export const THEMES = ["light", "dark"];

const labels = (more = {}) => ({
  "ai.backend.kernelspec": "1",
  "ai.backend.resource.min.cpu": "1",
  "ai.backend.resource.min.mem": "256m",
  ...more,
});
const cuda = labels({ "ai.backend.accelerators": "cuda", "ai.backend.resource.min.cuda.device": "1" });

/** What the registry is called in this lab. */
const HOST = "cr.lab.example";
const GB = 1_000_000_000;

/** Images as a teaching lab has them. Their manifests say so much; what lies in the registry is small. */
export async function stock(lab) {
  const push = (name, tag, size, more = {}) =>
    lab.push(name, tag, { labels: labels(), said: Math.round(size * GB), ...more });
  const all = [];
  for (const [version, size] of [
    ["3.9", 0.91],
    ["3.10", 0.94],
    ["3.11", 0.97],
    ["3.12", 1.02],
  ]) {
    all.push(push("stable/python", `${version}-ubuntu22.04`, size));
    all.push(push("stable/python", `${version}-ubuntu22.04-cuda12.2`, size + 3.3, { labels: cuda }));
  }
  for (const [version, size] of [
    ["2.12", 2.9],
    ["2.15", 3.1],
    ["2.17", 3.4],
  ])
    all.push(push("stable/tensorflow", `${version}-py311-cuda12.2`, size, { labels: cuda, layers: 2 }));
  all.push(push("stable/pytorch", "2.1-py311-cuda12.2", 5.8, { labels: cuda }));
  all.push(push("stable/pytorch", "2.3-py311-cuda12.2", 6.4, { labels: cuda }));
  all.push(push("stable/r-base", "4.3-debian12", 0.83), push("stable/r-base", "4.4-debian12", 0.86));
  for (const [version, size] of [
    ["3.19", 0.0034],
    ["3.20", 0.0036],
  ])
    all.push(push("library/alpine", version, size, { architectures: ["amd64", "arm64"], labels: {} }));
  all.push(push("lab/vision/notebook", "2026.1", 7.2, { labels: cuda }));
  all.push(push("lab/genomics/notebook", "2026.1", 2.2), push("lab/robotics/notebook", "2026.1", 1.9));
  // No image: every ledger has something to say.
  all.push(push("charts/hub", "1.2.0", 0.001, { kind: "application/vnd.cncf.helm.config.v1+json" }));
  await Promise.all(all);
}

/** Domains, projects, scaling groups and people. */
async function people(lab, page) {
  const change = async (field, declared, variables) => {
    const answer = await lab.ask(page, `mutation(${declared}) { ${field} { ok msg } }`, variables);
    const [outcome] = Object.values(answer);
    if (!outcome.ok) throw new Error(`${field}: ${outcome.msg}`);
  };
  for (const name of ["gpu", "cpu"])
    await change(
      'create_scaling_group(name: $name, props: { driver: "static", scheduler: "fifo" })',
      "$name: String!",
      {
        name,
      },
    );
  for (const [domain, group, uses] of [
    ["robotics", "vision", "gpu"],
    ["biology", "genomics", "cpu"],
  ]) {
    await change("create_domain(name: $name, props: { description: $about })", "$name: String!, $about: String", {
      name: domain,
      about: `The institute of ${domain}`,
    });
    await change(
      "modify_domain(name: $name, props: { allowed_docker_registries: [$host] })",
      "$name: String!, $host: String!",
      { name: domain, host: HOST },
    );
    await change("create_group(name: $name, props: { domain_name: $domain })", "$name: String!, $domain: String!", {
      name: group,
      domain,
    });
    const { groups_by_name } = await lab.ask(page, "query($name: String!) { groups_by_name(name: $name) { id } }", {
      name: group,
    });
    const { id } = groups_by_name[0];
    await change(
      "associate_scaling_group_with_user_group(scaling_group: $uses, user_group: $id)",
      "$uses: String!, $id: UUID!",
      { uses, id },
    );
    for (const [name, full_name, role] of [
      ["ann", "Ann Berg", "admin"],
      ["kim", "Kim Sato", "user"],
    ]) {
      const email = `${name}@${domain}.example`;
      const props = { username: email, full_name, password: PASSWORD, role, domain_name: domain, group_ids: [id] };
      await change("create_user(email: $email, props: $props)", "$email: String!, $props: UserInput!", {
        email,
        props,
      });
    }
  }
  for (const [id, group, zone] of [
    ["i-gpu01", "gpu", "a"],
    ["i-gpu02", "gpu", "a"],
    ["i-gpu03", "gpu", "b"],
    ["i-gpu11", "cpu", "b"],
  ])
    await change(
      'modify_agent(id: $id, props: {scaling_group: $group, labels: [{key: "zone", value: $zone}]})',
      "$id: String!, $group: String!, $zone: String!",
      { id, group, zone },
    );
  await change("modify_agent(id: $id, props: {schedulable: false})", "$id: String!", { id: "i-gpu10" });
  await change('create_api_token(name: "nightly build", scope: "read")', "", {}).catch(() => undefined);
  await change("create_agent_token(props: { id: $id })", "$id: String!", { id: "gpu13" });
}

/** A lab in which something has happened: images loaded, one of them moved on, a task at work, an agent lost. */
export async function inhabit(lab, page) {
  await stock(lab);
  await lab.fill(page, HOST);
  const preload = async (reference, agents) => {
    const { preload_image } = await lab.ask(
      page,
      "mutation($r: String!, $a: String!) { preload_image(reference: $r, target_agents: $a) { ok msg task_id } }",
      { r: reference, a: agents },
    );
    if (!preload_image.ok) throw new Error(preload_image.msg);
    return preload_image.task_id;
  };
  const end = (id) =>
    until("a preload", async () => {
      const { background_task } = await lab.ask(page, "query($id: String!) { background_task(id: $id) { state } }", {
        id,
      });
      return background_task.state !== "started";
    });
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
  await lab.push("lab/vision/notebook", "2026.1", { labels: cuda, said: 7.3 * GB, content: "newer" });
  await lab.scan(page);
  await lab.ask(page, 'mutation { alias_image(alias: "py", target: "stable/python:3.11-ubuntu22.04") { ok } }');
  await people(lab, page);
  await rules(lab, page);
  await lab.engines[11].stop();
  lab.engines.forEach((engine, place) => (engine.stall = 0.9 - 0.13 * place));
  const task = await preload("stable/tensorflow:2.17-py311-cuda12.2", "i-gpu[01-06]");
  await until("progress on each", async () => {
    const { background_task } = await lab.ask(
      page,
      "query($id: String!) { background_task(id: $id) { items { current } } }",
      { id: task },
    );
    return background_task.items.every((item) => item.current > 0);
  });
}

/** Two rules: one that has done its work, and one that is switched off. */
async function rules(lab, page) {
  const add = async (name, props) => {
    const { create_preload_rule } = await lab.ask(
      page,
      "mutation($n: String!, $p: CreatePreloadRuleInput!) { create_preload_rule(name: $n, props: $p) { ok msg } }",
      { n: name, p: props },
    );
    if (!create_preload_rule.ok) throw new Error(create_preload_rule.msg);
  };
  await add("teaching", { images: "*/stable/r-base:4.3*", target_agents: "i-gpu[01-04],i-gpu[20-21]" });
  await until("the rule to have done its work", async () => {
    const { preload_rule } = await lab.ask(page, '{ preload_rule(name: "teaching") { state } }');
    return preload_rule.state === "filled";
  });
  const window = { window: "22:00-06:00", time_zone: "Asia/Seoul" };
  await add("weekend", { images: "*", target_agents: "*", enabled: false, ...window });
}

/** The pages by name: the address, and what is done there before it is looked at. */
export function pages() {
  const image = encodeURIComponent(`${HOST}/stable/python:3.11-ubuntu22.04 x86_64`);
  const tensorflow = encodeURIComponent(`${HOST}/stable/tensorflow:2.15-py311-cuda12.2 x86_64`);
  const chosen = async (page) => {
    for (const name of [/python:3\.12-ubuntu22\.04$/, /tensorflow:2\.17/, /pytorch:2\.3/])
      await page.getByRole("checkbox", { name }).check();
  };
  const transfer = async (page, action, dialog, agents) => {
    await page.getByRole("toolbar").getByRole("button", { name: action }).click();
    const opened = page.getByRole("dialog", { name: dialog });
    await opened.getByRole("textbox", { name: "Agents" }).fill(agents);
    await opened.getByRole("region", { name: "What it will do" }).waitFor();
  };
  return {
    images: { path: "/images" },
    chosen: { path: "/images", act: chosen },
    image: {
      path: `/images?image=${image}`,
      act: (page) => page.getByRole("heading", { name: "Where it is" }).waitFor(),
    },
    places: {
      path: `/images?image=${image}`,
      act: async (page) => {
        await page.getByLabel("User", { exact: true }).fill("kim@robotics.example");
        await page.getByRole("dialog").getByText("Visible", { exact: true }).waitFor();
        await page.getByRole("heading", { name: "Who can see this" }).scrollIntoViewIfNeeded();
      },
    },
    preload: {
      path: `/images?image=${tensorflow}`,
      act: async (page) => {
        await page.getByRole("dialog").getByRole("button", { name: "Preload", exact: true }).first().click();
        const dialog = page.getByRole("dialog", { name: "Preload an image" });
        await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu[01-09]!i-gpu03");
        await dialog.getByText("to fetch in all").waitFor();
      },
    },
    "preload-several": {
      path: "/images",
      act: async (page) => {
        await chosen(page);
        await transfer(page, "Preload", "Preload 3 images", "*");
      },
    },
    "preload-wrong": {
      path: `/images?image=${tensorflow}`,
      act: async (page) => {
        await page.getByRole("dialog").getByRole("button", { name: "Preload", exact: true }).first().click();
        const dialog = page.getByRole("dialog", { name: "Preload an image" });
        await dialog.getByRole("textbox", { name: "Agents" }).fill("@gpu,i-gpu[04-06],i-gpu99");
        await dialog.getByText("no such agent").waitFor();
      },
    },
    unload: {
      path: "/images",
      act: async (page) => {
        await chosen(page);
        await transfer(page, "Unload", "Unload 3 images", "i-gpu[01-12]");
      },
    },
    forget: {
      path: "/images",
      act: async (page) => {
        await chosen(page);
        await page.getByRole("toolbar").getByRole("button", { name: "Forget" }).click();
        await page.getByRole("dialog", { name: "Forget 3 images?" }).waitFor();
      },
    },
    "no-images": {
      path: "/images?q=nothing-of-this-name",
      act: (page) => page.getByRole("heading", { name: "No image fits" }).waitFor(),
    },
    presence: { path: "/presence", act: (page) => page.getByRole("gridcell").first().waitFor() },
    "presence-chosen": {
      path: "/presence?q=python",
      act: async (page) => {
        await page.getByRole("gridcell", { name: "i-gpu02: present" }).first().waitFor();
        await page.getByRole("grid").focus();
        for (const key of ["ArrowRight", "Space", "Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight"])
          await page.keyboard.press(key);
        await page.getByText("3 images × 2 agents").waitFor();
      },
    },
    agents: { path: "/agents", act: (page) => page.getByRole("heading", { name: "Join tokens" }).waitFor() },
    agent: {
      path: "/agents?agent=i-gpu01",
      act: (page) => page.getByRole("dialog").getByText("present").first().waitFor(),
    },
    "agent-form": {
      path: "/agents",
      act: async (page) => {
        await page.getByRole("button", { name: "Add an agent" }).click();
        await page.getByRole("dialog", { name: "Add an agent" }).waitFor();
      },
    },
    registries: {
      path: "/registries",
      act: async (page) => {
        await page.getByText("1 skipped, and why").click();
        await page.getByText("an artifact, not an image").waitFor();
        await page.getByRole("link", { name: /images/ }).waitFor();
      },
    },
    "registry-form": { path: "/registries?add=1", act: (page) => page.getByRole("dialog").waitFor() },
    rules: { path: "/rules", act: (page) => page.getByRole("article", { name: "teaching" }).waitFor() },
    "rule-form": {
      path: "/rules?add=1",
      act: async (page) => {
        const dialog = page.getByRole("dialog", { name: "Add a rule" });
        await dialog.getByRole("textbox", { name: "Images" }).fill("*/stable/python:*");
        await dialog.getByRole("textbox", { name: "Agents" }).fill("i-gpu[01-08],i-gpu99");
        await dialog.getByText("to fetch at most").waitFor();
      },
    },
    tasks: { path: "/tasks", act: (page) => page.getByRole("region", { name: "Running" }).waitFor() },
    task: {
      path: "/tasks",
      act: async (page) => {
        await page.getByRole("region", { name: "Running" }).getByRole("link").click();
        await page.getByRole("heading", { name: "Items" }).waitFor();
      },
    },
    "task-ended": {
      path: "/tasks",
      act: async (page) => {
        await page.getByRole("region", { name: "Ended" }).getByRole("link").first().click();
        await page.getByRole("heading", { name: "Items" }).waitFor();
      },
    },
    domains: { path: "/access/domains" },
    groups: { path: "/access/groups" },
    "scaling-groups": { path: "/access/scaling-groups" },
    users: { path: "/access/users" },
    "user-form": {
      path: "/access/users",
      act: async (page) => {
        await page.getByRole("button", { name: "Add a user" }).click();
        await page.getByRole("dialog").getByText("biology / genomics").waitFor();
      },
    },
    "view-as": {
      path: "/access/users",
      act: async (page) => {
        await page.getByRole("button", { name: "View as kim@robotics.example" }).click();
        await page
          .getByRole("dialog")
          .getByText(/^Sees \d+ images/)
          .waitFor();
      },
    },
    keypairs: { path: "/access/keypairs" },
    tokens: { path: "/access/tokens" },
    account: { path: "/account", act: (page) => page.getByText("this session").waitFor() },
    "account-wrong": {
      path: "/account",
      act: async (page) => {
        await page.getByLabel("Old password").fill("not the one");
        await page.getByLabel("New password", { exact: true }).fill("short");
        await page.getByLabel("New password again").fill("short");
        await page.getByRole("button", { name: "Change the password" }).click();
        await page.getByRole("alert").getByText("too short").waitFor();
      },
    },
    audit: { path: "/audit", act: (page) => page.getByRole("row").nth(1).waitFor() },
    api: {
      path: "/api",
      // The editor finds its measure a moment after it is there.
      act: (page) =>
        page.waitForFunction(() => {
          const numbers = document.querySelector(".graphiql-query-editor .CodeMirror-gutter-wrapper");
          return numbers && numbers.style.left !== "0px";
        }),
    },
    nowhere: { path: "/nowhere" },
    help: {
      path: "/images",
      act: async (page) => {
        await page.getByRole("row").nth(1).waitFor();
        await page.keyboard.press("?");
        await page.getByRole("dialog").waitFor();
      },
    },
    menu: {
      path: "/images",
      act: async (page) => {
        await page.getByRole("row").nth(1).waitFor();
        const menu = page.getByRole("button", { name: "Menu" });
        if (await menu.isVisible()) await menu.click();
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
