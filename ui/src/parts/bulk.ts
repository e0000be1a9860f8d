// The same done to many, some at a time. What fails keeps nothing else from being done.

import { Failure, why } from "../api/failure.ts";

/** Requests under way at once: a browser keeps six connections to one server. */
const AT_ONCE = 3;

export interface Bulk<T> {
  done: T[];
  failed: { item: T; why: string }[];
}

/** Runs `work` for each item. It gives up where the next one would meet the same end: nobody answers, or knows us. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<Bulk<T>> {
  const outcome: Bulk<T> = { done: [], failed: [] };
  const left = [...items];
  let end: Failure | null = null;
  const run = async () => {
    while (!end) {
      const item = left.shift();
      if (item === undefined) return;
      try {
        await work(item);
        outcome.done.push(item);
      } catch (thrown) {
        if (thrown instanceof Failure && (thrown.kind === "lost" || thrown.kind === "signed-out")) end = thrown;
        outcome.failed.push({ item, why: why(thrown) });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
  // What was not begun has failed for the same reason.
  if (end) for (const item of left) outcome.failed.push({ item, why: why(end) });
  return outcome;
}
