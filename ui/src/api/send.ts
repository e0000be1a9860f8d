// One JSON request.

import { t } from "../text.ts";
import { connection } from "./connection.svelte.ts";
import { Failure } from "./failure.ts";

/** Posts JSON. Whatever does not reach the server is said to the whole page, not only to who asked. */
export async function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      credentials: "same-origin",
      ...(signal ? { signal } : {}),
    });
  } catch (thrown) {
    if (signal?.aborted) throw thrown;
    connection.fail();
    throw new Failure("lost", t.failure.lost);
  }
  connection.succeed();
  return answer;
}
