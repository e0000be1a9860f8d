// Short messages at the edge of the page. What failed stays until it is dismissed.

export interface Toast {
  id: number;
  kind: "good" | "bad";
  text: string;
  /** One thing to do about it: undo it, or look at it. */
  act?: { label: string; run: () => void };
}

const SHOWN_FOR = 8_000;
/** With something to press, which has to be read, thought about and reached. */
const OFFERED_FOR = 15_000;

class Toasts {
  list = $state.raw<Toast[]>([]);
  /** The places to show them, the last opened one last: all but that one are behind a dialog, and can't be pressed. */
  hosts = $state.raw<string[]>([]);
  #next = 0;
  #timers = new Map<number, ReturnType<typeof setTimeout>>();
  #isHeld = false;

  good(text: string, act?: Toast["act"]): void {
    this.#add({ kind: "good", text, ...(act ? { act } : {}) });
  }

  bad(text: string): void {
    this.#add({ kind: "bad", text });
  }

  dismiss = (id: number): void => {
    this.list = this.list.filter((toast) => toast.id !== id);
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    // Nobody points at what is gone.
    if (this.list.length === 0) this.#isHeld = false;
  };

  /** Nothing goes by itself from now on: somebody is at the messages. */
  hold = (): void => {
    this.#isHeld = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  };

  release = (): void => {
    this.#isHeld = false;
    for (const toast of this.list) this.#expire(toast);
  };

  #add(toast: Omit<Toast, "id">): void {
    const added = { ...toast, id: (this.#next += 1) };
    // The same twice says no more than once.
    const others = this.list.filter((other) => other.kind !== "bad" || other.text !== toast.text);
    this.list = [...others.slice(-3), added];
    this.#expire(added);
  }

  #expire(toast: Toast): void {
    if (toast.kind === "bad" || this.#isHeld) return;
    const end = () => (document.hidden ? this.#expire(toast) : this.dismiss(toast.id));
    clearTimeout(this.#timers.get(toast.id));
    this.#timers.set(toast.id, setTimeout(end, toast.act ? OFFERED_FOR : SHOWN_FOR));
  }
}

export const toasts = new Toasts();
