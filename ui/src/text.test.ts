import { expect, test } from "vitest";
import { t } from "./text.ts";

test("where nobody looks, the last use of an image is not known", () => {
  const day = "2026-12-01T00:00:00Z";
  const used = (in_use: boolean | null, last_used_at: string | null, unused_since: string | null) =>
    t.room.used({ in_use, last_used_at, unused_since });
  expect(used(true, day, day)).toBe("in use");
  expect(used(false, day, day)).toMatch(/^used /);
  expect(used(false, null, day)).toMatch(/^not used since /);
  expect(used(null, null, null)).toBe("use not known");
  expect(used(null, day, null)).toBe("use not known");
});
