// "Are you sure": what will be removed is named, and the answer is a promise.

export interface Question {
  title: string;
  body: string;
  /** The names of what is meant. */
  items?: string[];
  action: string;
  isDanger?: boolean;
}

class Confirm {
  question = $state.raw<Question | null>(null);
  #answer: ((yes: boolean) => void) | null = null;

  ask(question: Question): Promise<boolean> {
    this.settle(false);
    this.question = question;
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  settle = (yes: boolean): void => {
    this.question = null;
    this.#answer?.(yes);
    this.#answer = null;
  };
}

export const confirm = new Confirm();
