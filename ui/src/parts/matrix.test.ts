import { expect, test } from "vitest";
import { CELL, HEADS, clamp, columnsOf, contains, each, headOf, inView, lettersIn, moved, sorted } from "./matrix.ts";

test("only what is in view is drawn, with a little around it, and always as much", () => {
  for (let scroll = 0; scroll <= 28 * 500 - 280; scroll += 9) {
    const { first, last } = inView(scroll, 280, 28, 500);
    expect(last - first + 1).toBe(17);
    expect(first).toBeGreaterThanOrEqual(0);
    expect(last).toBeLessThanOrEqual(499);
    expect(first * 28).toBeLessThanOrEqual(scroll);
    expect((last + 1) * 28).toBeGreaterThanOrEqual(scroll + 280);
  }
  expect(inView(28 * 100, 280, 28, 500).first).toBe(97);
  expect(inView(0, 280, 28, 5)).toEqual({ first: 0, last: 4 });
  expect(each(inView(0, 280, 28, 0))).toEqual([]);
});

test("a name that has no room beside its cells is known by its letters", () => {
  const name = "stable/python:3.12-ubuntu22.04-cuda12.2";
  expect(lettersIn(340)).toBeGreaterThanOrEqual(name.length);
  expect(lettersIn(240)).toBeLessThan(name.length);
});

test("a range is the same whichever corner it began in", () => {
  const range = { from: { row: 5, column: 2 }, to: { row: 3, column: 9 } };
  expect(sorted(range)).toEqual({ from: { row: 3, column: 2 }, to: { row: 5, column: 9 } });
  expect(contains(range, 4, 2)).toBe(true);
  expect(contains(range, 6, 2)).toBe(false);
  expect(contains(null, 0, 0)).toBe(false);
});

test("keys move within the table", () => {
  const spot = { row: 0, column: 0 };
  expect(clamp(moved(spot, "ArrowUp", false, 10) ?? spot, 5, 5)).toEqual(spot);
  expect(clamp(moved(spot, "End", true, 10) ?? spot, 5, 7)).toEqual({ row: 4, column: 6 });
  expect(clamp(moved(spot, "PageDown", false, 3) ?? spot, 5, 7)).toEqual({ row: 3, column: 0 });
  expect(moved(spot, "x", false, 10)).toBeNull();
});

test("few agents fill the width, many keep the smallest cell and scroll", () => {
  const few = columnsOf(1_100, 12);
  expect(few.cell).toBeGreaterThan(CELL);
  expect(few.side + 12 * few.cell).toBe(1_100);
  expect(columnsOf(1_100, 200)).toEqual({ side: 340, cell: CELL });
  expect(columnsOf(360, 12)).toEqual({ side: 168, cell: CELL });
});

test("the heads are as high as the longest name, within reason", () => {
  expect(headOf([])).toBe(HEADS.least);
  expect(headOf(["i-gpu01", "i-gpu-lab-01"])).toBeGreaterThan(headOf(["i-gpu01"]));
  expect(headOf(["n".repeat(200)])).toBe(HEADS.most);
});
