import { expect, test } from "vitest";
import { plain, plainLines } from "./plain.ts";

test("what turns or hides text is written out", () => {
  expect(plain("abc\u202egnp.exe")).toBe("abc\\u{202e}gnp.exe");
  expect(plain("zero\u200bwidth\u0000")).toBe("zero\\u{200b}width\\u{0}");
  expect(plain("tag\u{e0041}")).toBe("tag\\u{e0041}");
});

test("text in any script stays as it is", () => {
  for (const text of ["日本語", "עברית", "<b>not bold</b>", "naïve 🚢"]) expect(plain(text)).toBe(text);
});

test("a megabyte is cut, and no character in two", () => {
  expect(plain("x".repeat(1_000_000), 10)).toBe(`${"x".repeat(10)}…`);
  expect(plain("🚢".repeat(20), 5)).toBe(`${"🚢".repeat(5)}…`);
});

test("lines stay lines where lines are wanted", () => {
  expect(plain("a\nb")).toBe("a b");
  expect(plainLines("gpu&\n   ^")).toBe("gpu&\n   ^");
});
