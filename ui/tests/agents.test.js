import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fleet } from "./fleet.js";
import { Lab, until } from "./support.js";

let lab;
let page;
before(async () => {
  lab = await Lab.start({ agents: 2 });
  lab.engines.push(...(await fleet(lab.folder, 1, "far")));
  page = await lab.admin("/agents");
});
after(() => lab?.close());

const row = (name) => page.getByRole("row", { name: new RegExp(`^${name} `) });

test("the command that is shown makes a node an agent", async () => {
  await page.getByRole("button", { name: "Add an agent" }).click();
  const dialog = page.getByRole("dialog", { name: "Add an agent" });
  await dialog.getByLabel("Agent id").fill("far01");
  await dialog.getByRole("button", { name: "Make the command" }).click();
  const command = await dialog.locator("code").innerText();
  const [, token, args] = /^WHARF_TOKEN=(whj_\w+) wharf agent (.*)$/.exec(command) ?? assert.fail(command);
  assert.equal(args, `--manager ${lab.url}`);
  lab.agent(lab.engines[2], args.split(" "), { WHARF_TOKEN: token });
  await dialog.getByRole("button", { name: "Done" }).click();
  await row("far01").getByText("answers").waitFor();
  await page.getByText("let far01 in").waitFor();
});

test("an agent is drained, and let in again by undoing it", async () => {
  await page.getByRole("link", { name: "far01" }).click();
  const drawer = page.getByRole("dialog", { name: "far01" });
  await drawer.getByRole("button", { name: "Drain" }).click();
  await drawer.getByText("draining").waitFor();
  await drawer.getByRole("button", { name: "Undo" }).click();
  await drawer.getByText("answers").waitFor();
});

test("an agent is put into a scaling group, and labelled", async () => {
  await lab.ask(
    page,
    'mutation { create_scaling_group(name: "gpu", props: {driver: "static", scheduler: "fifo"}) { ok } }',
  );
  await page.goto(`${lab.url}/agents?agent=far01`);
  const drawer = page.getByRole("dialog", { name: "far01" });
  await drawer.getByLabel("Scaling group").selectOption("gpu");
  await drawer.getByRole("button", { name: "Move", exact: true }).click();
  await drawer.getByLabel("New label").fill("zone=a");
  await drawer.getByRole("button", { name: "Add", exact: true }).click();
  await drawer.getByRole("button", { name: "Remove the label zone" }).waitFor();
  await until("the group", async () => {
    const { agent } = await lab.ask(page, '{ agent(agent_id: "far01") { scaling_group } }');
    return agent.scaling_group === "gpu";
  });
});

test("removing an agent names it; one that the server follows itself stays, and it is said why", async () => {
  await page.goto(`${lab.url}/agents?agent=i-gpu01`);
  await page.getByRole("dialog", { name: "i-gpu01" }).getByRole("button", { name: "Remove", exact: true }).click();
  let question = page.getByRole("dialog", { name: "Remove i-gpu01?" });
  await question.getByRole("button", { name: "Remove" }).click();
  await page.getByText("take it out of --engine first").waitFor();
  await page.goto(`${lab.url}/agents?agent=far01`);
  await page.getByRole("dialog", { name: "far01" }).getByRole("button", { name: "Remove", exact: true }).click();
  question = page.getByRole("dialog", { name: "Remove far01?" });
  await question.getByText("far01", { exact: true }).waitFor();
  await question.getByRole("button", { name: "Remove" }).click();
  await page.getByText("far01 is removed.").waitFor();
  await row("far01").waitFor({ state: "detached" });
});
