import { expect, test } from "vitest";
import { ago, bytes, duration, shortDigest } from "./format.ts";

test("bytes are counted as registries count them", () => {
  expect([0, 999, 1_000, 1_250_000, 12_000_000_000, 999_600].map(bytes)).toEqual([
    "0 B",
    "999 B",
    "1.0 kB",
    "1.3 MB",
    "12.0 GB",
    "1.0 MB",
  ]);
  expect(bytes(null)).toBe("–");
});

test("times are told as people tell them", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  expect(ago("2026-01-01T11:59:58Z", now)).toBe("now");
  expect(ago("2026-01-01T11:55:00Z", now)).toBe("5 min. ago");
  expect(ago("2025-12-30T12:00:00Z", now)).toBe("2 days ago");
  expect(ago("never", now)).toBe("–");
  expect(duration(3_725)).toBe("1 h 2 min");
});

test("a digest is shortened to what tells two apart", () => {
  expect(shortDigest(`sha256:${"ab".repeat(32)}`)).toBe("abababababab");
  expect(shortDigest("")).toBe("–");
});
