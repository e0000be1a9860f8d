// Short messages at the edge of the page. What failed stays until it is dismissed.

export interface Toast {
  id: number;
  kind: "good" | "bad";
  text: string;
  /** One thing to do about it: undo it, or look at it. */
  act?: { label: string; run: () => void };
}

const SHOWN_FOR = 8_000;

class Toasts {
  list = $state.raw<Toast[]>([]);
  /** The places to show them, the last opened one last: all but that one are behind a dialog, and can't be pressed. */
  hosts = $state.raw<string[]>([]);
  #next = 0;

  good(text: string, act?: Toast["act"]): void {
    this.#add({ kind: "good", text, ...(act ? { act } : {}) });
  }

  bad(text: string): void {
    this.#add({ kind: "bad", text });
  }

  dismiss = (id: number): void => {
    this.list = this.list.filter((toast) => toast.id !== id);
  };

  #add(toast: Omit<Toast, "id">): void {
    const id = (this.#next += 1);
    this.list = [...this.list.slice(-3), { ...toast, id }];
    if (toast.kind === "good") setTimeout(() => this.dismiss(id), SHOWN_FOR);
  }
}

export const toasts = new Toasts();
