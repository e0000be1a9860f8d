import { expect, test } from "vitest";
import { chipsOf, withChip } from "./chips.ts";

const agent = (
  id: string,
  scaling_group = "default",
  status = "ALIVE",
  labels: { key: string; value: string }[] = [],
) => ({ id, scaling_group, status, labels });

test("the words offered fit the agents there are", () => {
  expect(chipsOf([])).toEqual([]);
  const texts = chipsOf([
    agent("gpu01"),
    agent("gpu02", "a100", "LOST", [{ key: "zone", value: "a" }]),
    agent("cpu1"),
  ]).map((chip) => chip.text);
  expect(texts).toEqual([
    "*",
    "@default",
    "@a100",
    "*&{status=alive}",
    "gpu*",
    "cpu*",
    "{zone=a}",
    "gpu01",
    "gpu02",
    "cpu1",
  ]);
});

test("a word is added so that the whole still means both", () => {
  expect(withChip("", "*")).toBe("*");
  expect(withChip("gpu01", "@a100")).toBe("gpu01,@a100");
  // Unions come before filters in this language.
  expect(withChip("gpu*!gpu03", "cpu1")).toBe("(gpu*!gpu03),cpu1");
  expect(withChip("cpu1", "*&{status=alive}")).toBe("cpu1,(*&{status=alive})");
  expect(withChip("{gpu!=h100}", "cpu1")).toBe("{gpu!=h100},cpu1");
});
