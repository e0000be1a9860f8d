import { expect, test } from "vitest";
import { holders, summed, touched, type Step } from "./plan.ts";

const step = (agent: string, more: Partial<Step> = {}): Step => ({
  agent,
  step: "to-fetch",
  bytes: 10,
  free_bytes: 100,
  fits: true,
  problem: null,
  ...more,
});

test("what several images come to on an agent is summed up", () => {
  const { lines, bytes } = summed([
    { agents: [step("a"), step("b", { step: "already-there", bytes: 0 })] },
    { agents: [step("a"), step("b")] },
    { agents: [step("a", { step: "stale" }), step("b", { step: "already-there", bytes: 0 })] },
  ]);
  expect(bytes).toBe(40);
  expect(lines.map(({ agent, bytes, fits }) => [agent, bytes, fits])).toEqual([
    ["a", 30, "yes"],
    ["b", 10, "yes"],
  ]);
  expect(lines[1]?.steps).toEqual([
    { step: "already-there", count: 2 },
    { step: "to-fetch", count: 1 },
  ]);
});

test("images that fit one by one may not fit together, and what does not fit comes first", () => {
  const { lines } = summed([
    { agents: [step("roomy"), step("narrow", { free_bytes: 15 }), step("full", { fits: false, free_bytes: 1 })] },
    {
      agents: [step("roomy"), step("narrow", { free_bytes: 15 }), step("full", { step: "already-there", bytes: 0 })],
    },
  ]);
  expect(lines.map(({ agent, fits }) => [agent, fits])).toEqual([
    ["full", "no"],
    ["narrow", "unsure"],
    ["roomy", "yes"],
  ]);
});

test("an engine that does not tell its room promises nothing", () => {
  const { lines } = summed([{ agents: [step("a", { free_bytes: null, fits: null })] }]);
  expect(lines[0]?.fits).toBe("unknown");
});

test("only the named agents that hold something lose something", () => {
  const rows = [{ states: "psa" }, { states: "paa" }, { states: "aau" }];
  expect(holders(["a", "b", "c"], rows, ["b", "c"])).toEqual([{ agent: "b", count: 1 }]);
  expect(holders(["a", "b", "c"], rows, ["a", "c"])).toEqual([{ agent: "a", count: 2 }]);
});

test("a task for one architecture leaves out the agents of others, and keeps those that nobody has met", () => {
  const matrix = {
    agents: ["arm", "new", "pc1", "pc2", "risc"],
    architectures: ["aarch64", null, "x86_64", "x86_64", "riscv64"],
    rows: [{ architecture: "x86_64" }, { architecture: "aarch64" }],
  };
  expect(touched(matrix, matrix.agents, "")).toEqual({
    names: matrix.agents,
    counts: [
      ["aarch64", 1],
      ["x86_64", 2],
    ],
    leftOut: 0,
  });
  expect(touched(matrix, ["arm", "new", "pc1"], "aarch64")).toEqual({
    names: ["arm", "new"],
    counts: [["aarch64", 1]],
    leftOut: 1,
  });
  expect(touched(matrix, ["pc1"], "aarch64")).toEqual({ names: [], counts: [], leftOut: 1 });
});

test("what would go is told where that makes all images fit, and not where it does not", () => {
  const short = { fits: false, fits_with_room: true };
  const room = (...names: string[]) => [{ digest: "sha256:12", names }];
  const { lines } = summed([
    { agents: [step("a", { ...short, room: room("x:1", "x:2") }), step("b", { ...short, room: room("z:1") })] },
    { agents: [step("a", { ...short, room: room() }), step("b", { fits: false, fits_with_room: false, room: [] })] },
    { agents: [step("c")] },
  ]);
  expect(lines.map(({ agent, room }) => [agent, room])).toEqual([
    ["a", ["x:1", "sha256:12"]],
    ["b", null],
    ["c", null],
  ]);
});
