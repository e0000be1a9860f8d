// What is done to images, from wherever it is asked for: sent, reported, and taken back where the server can.

import { ask } from "../api/ask.ts";
import { Failure, why } from "../api/failure.ts";
import { ofKey } from "../api/image.ts";
import {
  AliasDocument,
  CancelTaskDocument,
  DealiasDocument,
  ForgetDocument,
  ImageDetailsDocument,
  PreloadDocument,
  RescanDocument,
  ScanImageDocument,
  UnloadDocument,
} from "../api/operations.ts";
import { route } from "../api/route.svelte.ts";
import { tasks } from "../api/tasks.svelte.ts";
import { t } from "../text.ts";
import { confirm } from "./confirm.svelte.ts";
import { toasts } from "./toasts.svelte.ts";

interface Outcome {
  ok: boolean | null;
  msg?: string | null;
  task_id?: string | null;
}

/** The server says no with HTTP 200 and `ok: false`; here that is a failure like any other. */
export function settled<O extends Outcome>(outcome: O | null | undefined): O {
  if (!outcome?.ok) throw new Failure("refused", outcome?.msg || t.failure.noAnswer);
  return outcome;
}

/** Runs something for a press of a button; what fails is shown, and the answer says whether it went well. */
export async function attempt(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (thrown) {
    toasts.bad(why(thrown));
    return false;
  }
}

function look(task: string | null | undefined) {
  return task ? { label: t.tasks.look, run: () => route.go(`/tasks/${task}`) } : undefined;
}

/** Several images are one task: the first has an argument of its own. */
function all([reference = "", ...more]: string[], agents: string) {
  return { reference, references: more, target_agents: agents };
}

export function preload(references: string[], agents: string): Promise<boolean> {
  return attempt(async () => {
    const { task_id } = settled((await ask(PreloadDocument, all(references, agents))).preload_image);
    toasts.good(t.preload.started(references.length), look(task_id));
    void tasks.read();
  });
}

export function unload(references: string[], agents: string): Promise<boolean> {
  return attempt(async () => {
    settled((await ask(UnloadDocument, all(references, agents))).unload_image);
    toasts.good(t.unload.started(references.length), {
      label: t.unload.undo,
      run: () => void preload(references, agents),
    });
    void tasks.read();
  });
}

export function rescan(registry: string | null, confirmRemovals = false): Promise<boolean> {
  return attempt(async () => {
    const answer = await ask(RescanDocument, { registry, confirm_removals: confirmRemovals });
    const { task_id } = settled(answer.rescan_images);
    toasts.good(t.registries.rescanStarted(registry), look(task_id));
    void tasks.read();
  });
}

export function rescanOne(references: string[]): Promise<boolean> {
  return attempt(async () => {
    let last: string | null | undefined;
    for (const reference of references)
      last = settled((await ask(ScanImageDocument, { reference })).scan_image).task_id;
    toasts.good(t.images.rescanStarted(references.length), look(last));
    void tasks.read();
  });
}

export function alias(name: string, reference: string, architecture: string | null): Promise<boolean> {
  return attempt(async () => {
    settled((await ask(AliasDocument, { alias: name, target: reference, architecture })).alias_image);
    toasts.good(t.images.aliased(name));
  });
}

export function dealias(
  name: string,
  reference: string,
  architecture: string | null,
  after: () => void,
): Promise<boolean> {
  return attempt(async () => {
    settled((await ask(DealiasDocument, { alias: name })).dealias_image);
    const run = () => void alias(name, reference, architecture).then(after);
    toasts.good(t.images.dealiased(name), { label: t.undo, run });
    after();
  });
}

/** Takes images out of the catalog. Undoing it reads them from their registry again, and names them as they were. */
export async function forget(keys: string[], after: () => void): Promise<void> {
  const yes = await confirm.ask({
    title: t.images.forgetTitle(keys.length),
    body: t.images.forgetBody,
    items: keys,
    action: t.images.forget,
    isDanger: true,
  });
  if (!yes) return;
  await attempt(async () => {
    const names: { alias: string; reference: string; architecture: string }[] = [];
    for (const key of keys) {
      const { reference, architecture } = ofKey(key);
      const found = (await ask(ImageDetailsDocument, { reference, architecture })).image;
      for (const alias of found?.aliases ?? []) if (alias) names.push({ alias, reference, architecture });
      settled((await ask(ForgetDocument, { reference, architecture })).forget_image);
    }
    toasts.good(t.images.forgotten(keys.length), { label: t.undo, run: () => void bringBack(keys, names, after) });
    after();
  });
}

async function bringBack(
  keys: string[],
  names: { alias: string; reference: string; architecture: string }[],
  after: () => void,
): Promise<void> {
  await attempt(async () => {
    const wanted = new Set<string>();
    for (const reference of new Set(keys.map((key) => ofKey(key).reference))) {
      const { task_id } = settled((await ask(ScanImageDocument, { reference })).scan_image);
      if (task_id) wanted.add(task_id);
    }
    await ends(wanted);
    for (const { alias, reference, architecture } of names) {
      settled((await ask(AliasDocument, { alias, target: reference, architecture })).alias_image);
    }
    toasts.good(t.images.broughtBack(keys.length));
    after();
  });
}

/** Waits until none of these tasks runs any more. */
async function ends(ids: Set<string>): Promise<void> {
  const isRunning = () => tasks.list.some((task) => ids.has(task.id) && task.state === "started");
  do {
    await tasks.read();
    await new Promise((resolve) => setTimeout(resolve, 300));
  } while (isRunning());
}

export async function cancel(id: string): Promise<void> {
  await attempt(async () => {
    settled((await ask(CancelTaskDocument, { id })).cancel_task);
    toasts.good(t.tasks.cancelling);
    void tasks.read();
  });
}
