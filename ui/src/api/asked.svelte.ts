// A question that a page keeps asking: again when its variables change, and when the server comes back.

import { ask } from "./ask.ts";
import { connection } from "./connection.svelte.ts";
import { isAborted, why } from "./failure.ts";
import type { TypedDocumentString } from "./operations.ts";
import { session } from "./session.svelte.ts";

export class Asked<R> {
  /** The last answer; it stays while the next one is on its way. */
  data = $state.raw<R | undefined>(undefined);
  /** Why there is no newer one. */
  error = $state<string | null>(null);
  /** An answer is on its way, or the question waits for the typing to end. */
  busy = $state(false);
  #round = $state(0);

  /** Asks once more. */
  again = (): void => {
    this.#round += 1;
  };

  /** Asks once more, unless an answer is on its way or nobody looks: for what is asked by the clock. */
  refresh = (): void => {
    if (!this.busy && !document.hidden) this.again();
  };

  /** Reading this makes an effect run again after `again()`. */
  get round(): number {
    return this.#round;
  }
}

/** To be called while a component is made; `question` may read state, and null asks nothing. */
export function asked<R, V>(question: () => { of: TypedDocumentString<R, V>; with: V } | null, pause = 0): Asked<R> {
  const answer = new Asked<R>();
  let isFirst = true;
  $effect(() => {
    void answer.round;
    void connection.epoch;
    if (session.state === "expired") return;
    const now = question();
    answer.busy = now !== null;
    if (now === null) return;
    const controller = new AbortController();
    const run = async () => {
      try {
        const data = await ask(now.of, now.with, controller.signal);
        // It may have been on its way already when another question was asked.
        if (controller.signal.aborted) return;
        answer.data = data;
        answer.error = null;
      } catch (thrown) {
        if (isAborted(thrown) || controller.signal.aborted) return;
        answer.error = why(thrown);
      }
      answer.busy = false;
    };
    // While someone types, only the last of several questions is asked.
    const timer = setTimeout(run, isFirst ? 0 : pause);
    isFirst = false;
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  });
  return answer;
}
