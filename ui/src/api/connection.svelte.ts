// Whether the server answers, and whether it is still the one this page came from.

import { isAborted } from "./failure.ts";

/** How often a page that is looked at asks whether the server is there. */
const BEAT = 3_000;
/** How often, while it is not. */
const RETRY = 1_000;
/** A server that takes longer for one header is gone, or as good as. */
const PATIENCE = 8_000;

class Connection {
  /** The last request met nobody. */
  lost = $state(false);
  /** Counts the times it came back; whatever was shown may have changed since. */
  epoch = $state(0);
  /** The server has other pages than this one by now. */
  upgraded = $state(false);

  #tag: string | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Told by every request that met nobody. */
  fail(): void {
    if (!this.lost) {
      this.lost = true;
      this.#beatIn(RETRY);
    }
  }

  /** Told by every request that met someone. */
  succeed(): void {
    if (this.lost) {
      this.lost = false;
      this.epoch += 1;
      void this.beat();
    }
  }

  start(): () => void {
    const now = () => {
      if (!document.hidden) void this.beat();
    };
    window.addEventListener("online", now);
    window.addEventListener("offline", now);
    document.addEventListener("visibilitychange", now);
    void this.beat();
    return () => {
      clearTimeout(this.#timer);
      window.removeEventListener("online", now);
      window.removeEventListener("offline", now);
      document.removeEventListener("visibilitychange", now);
    };
  }

  /** Asks for the script's tag: that tells both whether someone is there and whether it is the same version. */
  async beat(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      const signal = AbortSignal.timeout(PATIENCE);
      const answer = await fetch("/app.js", { method: "HEAD", cache: "no-store", signal });
      if (answer.ok) this.#compare(answer.headers.get("etag"));
      if (answer.status < 500) this.succeed();
      else this.fail();
    } catch (thrown) {
      if (!isAborted(thrown)) this.fail();
    }
    this.#beatIn(this.lost ? RETRY : BEAT);
  }

  #beatIn(delay: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // A page in the background asks again when it is looked at.
      if (!document.hidden || this.lost) void this.beat();
      else this.#beatIn(BEAT);
    }, delay);
  }

  #compare(tag: string | null): void {
    if (tag === null) return;
    if (this.#tag === null) this.#tag = tag;
    else if (this.#tag !== tag) this.upgraded = true;
  }
}

export const connection = new Connection();
