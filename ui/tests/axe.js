// What axe finds on a page, a line for each kind of fault.

import { readFileSync } from "node:fs";

const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
/** GraphiQL is another project's; its insides are not ours to judge. */
const FOREIGN = [".graphiql-container"];

export async function judge(page) {
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
