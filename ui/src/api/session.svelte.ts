// Who is signed in. The secret is a cookie that scripts can't read.

import { t } from "../text.ts";
import { Failure } from "./failure.ts";
import { send } from "./send.ts";

export type Role = "superadmin" | "admin" | "user" | "monitor";

export interface Who {
  name: string;
  role: Role;
}

/** What a program signs its requests with. */
export interface Keypair {
  accessKey: string;
  secretKey: string;
}

interface Answer {
  /** What kind of failure it is, in the API's words. */
  code?: string;
  authenticated?: boolean;
  /** There is no account yet. */
  setup?: boolean;
  data?: {
    role?: string;
    email?: string;
    username?: string;
    title?: string;
    details?: string;
    access_key?: string;
    secret_key?: string;
  } | null;
  msg?: string;
}

const NAME = "wharf.name";
/** What the server takes, so that a page can say it before anything is sent: in characters, and in bytes of UTF-8. */
export const SHORTEST_PASSWORD = 8;
export const LONGEST_PASSWORD = 1024;

function throttled(answer: Response): string {
  return t.signIn.throttled(Number(answer.headers.get("Retry-After") ?? "0"));
}

class Session {
  /** `checking` until the server has said; `expired` keeps the page behind the sign-in; `new` has no account yet. */
  state = $state<"checking" | "new" | "out" | "in" | "expired">("checking");
  who = $state<Who | null>(null);

  get isSuperadmin(): boolean {
    return this.who?.role === "superadmin";
  }

  async check(): Promise<void> {
    const answer = await send("/server/login-check", {});
    const body = (await answer.json().catch(() => ({}))) as Answer;
    if (answer.ok && body.authenticated) this.#enter(body, sessionStorage.getItem(NAME) ?? "");
    else this.state = answer.ok && body.setup ? "new" : "out";
  }

  /** Makes the first account. Its session begins with the next check, when its keys have been shown. */
  async setUp(token: string, email: string, password: string): Promise<Keypair> {
    const answer = await send("/server/setup", { token, email, password });
    const body = (await answer.json().catch(() => ({}))) as Answer;
    if (answer.status === 429) throw new Failure("refused", throttled(answer));
    if (!answer.ok || !body.data) throw new Failure("refused", body.msg || t.failure.status(answer.status));
    sessionStorage.setItem(NAME, email);
    return { accessKey: body.data.access_key ?? "", secretKey: body.data.secret_key ?? "" };
  }

  async signIn(username: string, password: string): Promise<void> {
    const answer = await send("/server/login", { username, password });
    const body = (await answer.json().catch(() => ({}))) as Answer;
    if (answer.ok && body.authenticated) {
      sessionStorage.setItem(NAME, username);
      return this.#enter(body, username);
    }
    if (answer.status === 429) throw new Failure("refused", throttled(answer));
    if (answer.status === 404 || answer.status === 405) throw new Failure("broken", t.signIn.unsupported);
    if (answer.status >= 500) throw new Failure("broken", t.failure.status(answer.status));
    throw new Failure("refused", body.data?.details || body.data?.title || t.signIn.wrong);
  }

  /** Another password. The server ends all other sessions of the account with it. */
  async changePassword(old_password: string, new_password: string): Promise<void> {
    const answer = await send("/auth/update-password", { old_password, new_password, new_password2: new_password });
    if (answer.ok) return;
    const body = (await answer.json().catch(() => ({}))) as Answer;
    if (answer.status === 401) {
      this.expire();
      throw new Failure("signed-out", t.failure.signedOut);
    }
    if (answer.status === 429) throw new Failure("refused", throttled(answer));
    if (answer.status >= 500) throw new Failure("broken", t.failure.status(answer.status));
    const isWrong = body.code === "DENIED";
    throw new Failure("refused", isWrong ? t.account.wrongOld : body.msg || t.failure.status(answer.status));
  }

  async signOut(): Promise<void> {
    await send("/server/logout", {});
    sessionStorage.removeItem(NAME);
    this.forget();
  }

  /** To the sign-in page, with nothing of the old session left. */
  forget(): void {
    this.who = null;
    this.state = "out";
  }

  /** The server no longer knows the cookie. */
  expire(): void {
    if (this.state === "in") this.state = "expired";
    else if (this.state === "checking") this.state = "out";
  }

  #enter(body: Answer, name: string): void {
    const role = (body.data?.role ?? "user") as Role;
    this.who = { name: body.data?.email ?? body.data?.username ?? name, role };
    this.state = "in";
  }
}

export const session = new Session();
