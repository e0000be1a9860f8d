// What can go wrong between the page and the server, and what to say of it.

/** Why an answer did not come. */
export type Kind =
  /** Nothing answered: the server is down, or the network is. */
  | "lost"
  /** The server does not know us, or no longer. */
  | "signed-out"
  /** The server understood and said no. */
  | "refused"
  /** The server, or what is between, made a mistake. */
  | "broken";

export class Failure extends Error {
  readonly kind: Kind;

  constructor(kind: Kind, message: string) {
    super(message);
    this.name = "Failure";
    this.kind = kind;
  }
}

/** Any thrown thing as text for people. */
export function why(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Whether a request was given up by ourselves. */
export function isAborted(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === "AbortError";
}
