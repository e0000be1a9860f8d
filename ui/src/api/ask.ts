// One GraphQL operation: sent, answered, and turned into data or a Failure.

import { t } from "../text.ts";
import { Failure } from "./failure.ts";
import type { TypedDocumentString } from "./operations.ts";
import { send } from "./send.ts";
import { session } from "./session.svelte.ts";

interface Answer<R> {
  data?: R | null;
  errors?: { message: string }[] | null;
}

export async function ask<R, V>(
  operation: TypedDocumentString<R, V>,
  variables: V,
  signal?: AbortSignal,
): Promise<R> {
  const answer = await send("/graphql", { query: operation.toString(), variables }, signal);
  if (answer.status === 401) {
    session.expire();
    throw new Failure("signed-out", t.failure.signedOut);
  }
  const body = (await answer.json().catch(() => null)) as (Answer<R> & { msg?: string; title?: string }) | null;
  if (!answer.ok) throw new Failure("broken", body?.msg ?? body?.title ?? t.failure.status(answer.status));
  const first = body?.errors?.[0];
  if (first) throw new Failure("refused", first.message);
  if (!body?.data) throw new Failure("broken", t.failure.noAnswer);
  return body.data;
}
