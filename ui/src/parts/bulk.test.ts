import { expect, test } from "vitest";
import { Failure } from "../api/failure.ts";
import { each } from "./bulk.ts";

test("what fails keeps nothing else from being done", async () => {
  const { done, failed } = await each(["a", "b", "c", "d", "e"], async (item) => {
    if (item === "b") throw new Failure("refused", "not b");
  });
  expect(done.sort()).toEqual(["a", "c", "d", "e"]);
  expect(failed).toEqual([{ item: "b", why: "not b" }]);
});

test("when nobody answers, the rest is not tried", async () => {
  let tried = 0;
  const { done, failed } = await each([...Array(50).keys()], async () => {
    tried += 1;
    throw new Failure("lost", "nobody there");
  });
  expect(done).toEqual([]);
  expect(failed.length).toBe(50);
  expect(tried).toBeLessThan(5);
});

test("no more than three run at once", async () => {
  let running = 0;
  let most = 0;
  await each([...Array(20).keys()], async () => {
    running += 1;
    most = Math.max(most, running);
    await Promise.resolve();
    running -= 1;
  });
  expect(most).toBe(3);
});
