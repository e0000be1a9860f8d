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
import { each, type Bulk } from "./bulk.ts";
import { confirm } from "./confirm.svelte.ts";
import { toasts, type Toast } from "./toasts.svelte.ts";

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

/** A way to the task, or to all of them. */
function look(task: string | null | undefined) {
  return { label: t.tasks.look, run: () => route.go(task ? `/tasks/${task}` : "/tasks") };
}

/** Says what came of many: which were done, and the first reason why others were not. True if all were. */
function told(outcome: Bulk<string>, good: (count: number) => string, act?: Toast["act"]): boolean {
  const { done, failed } = outcome;
  if (done.length > 0) toasts.good(good(done.length), act);
  const [first] = failed;
  if (first) toasts.bad(failed.length > 1 ? t.failedSome(failed.length, first.item, first.why) : first.why);
  void tasks.read();
  return failed.length === 0;
}

/** The server takes so many images in one task. */
const MOST_IN_TASK = 100;

/** One task for all of them, or as few as may be. */
async function transfer(
  references: string[],
  begin: (variables: { reference: string; references: string[] }) => Promise<void>,
): Promise<Bulk<string>> {
  const portions: string[][] = [];
  for (let from = 0; from < references.length; from += MOST_IN_TASK)
    portions.push(references.slice(from, from + MOST_IN_TASK));
  const { done, failed } = await each(portions, ([reference = "", ...more]) =>
    begin({ reference, references: more }),
  );
  return {
    done: done.flat(),
    failed: failed.flatMap(({ item, why }) => item.map((reference) => ({ item: reference, why }))),
  };
}

/** Of one architecture, and on no agent of another, or of each agent's own. Where one does not fit, others may go first. */
export async function preload(
  references: string[],
  agents: string,
  architecture: string | null,
  makeRoom = false,
): Promise<boolean> {
  let last: string | null | undefined;
  const outcome = await transfer(references, async (images) => {
    const wanted = { ...images, target_agents: agents, architecture, make_room: makeRoom };
    last = settled((await ask(PreloadDocument, wanted)).preload_image).task_id;
  });
  return told(outcome, t.preload.started, look(outcome.done.length <= MOST_IN_TASK ? last : ""));
}

export async function unload(references: string[], agents: string, architecture: string | null): Promise<boolean> {
  const outcome = await transfer(references, async (images) => {
    settled((await ask(UnloadDocument, { ...images, target_agents: agents, architecture })).unload_image);
  });
  return told(outcome, t.unload.started, {
    label: t.unload.undo,
    run: () => void preload(outcome.done, agents, architecture),
  });
}

/** Takes an image off agents that the catalog does not know; it can't be loaded again. */
export async function unloadUnknown(digest: string, names: readonly string[], agents: string): Promise<void> {
  const yes = await confirm.ask({
    title: t.room.unloadTitle,
    body: t.room.unloadBody,
    items: names.length > 0 ? [...names] : [digest],
    action: t.unload.start,
    isDanger: true,
  });
  if (!yes) return;
  await attempt(async () => {
    const wanted = { reference: digest, references: [], target_agents: agents, architecture: null };
    const { task_id } = settled((await ask(UnloadDocument, wanted)).unload_image);
    toasts.good(t.unload.started(1), look(task_id));
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

export async function rescanOne(references: string[]): Promise<boolean> {
  let last: string | null | undefined;
  const outcome = await each(references, async (reference) => {
    last = settled((await ask(ScanImageDocument, { reference })).scan_image).task_id;
  });
  return told(outcome, t.images.rescanStarted, look(outcome.done.length === 1 ? last : ""));
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

/** Takes images out of the catalog. Undoing it reads them from their registry again, and names them as they were. `after` is
 * called when they are gone, and once more when they are back. */
export async function forget(keys: string[], after: (isBack: boolean) => void): Promise<void> {
  const yes = await confirm.ask({
    title: t.images.forgetTitle(keys.length),
    body: t.images.forgetBody,
    items: keys,
    action: t.images.forget,
    isDanger: true,
  });
  if (!yes) return;
  const names: { alias: string; reference: string; architecture: string }[] = [];
  const outcome = await each(keys, async (key) => {
    const { reference, architecture } = ofKey(key);
    const found = (await ask(ImageDetailsDocument, { reference, architecture })).image;
    settled((await ask(ForgetDocument, { reference, architecture })).forget_image);
    for (const alias of found?.aliases ?? []) if (alias) names.push({ alias, reference, architecture });
  });
  told(outcome, t.images.forgotten, { label: t.undo, run: () => void bringBack(outcome.done, names, after) });
  if (outcome.done.length > 0) after(false);
}

async function bringBack(
  keys: string[],
  names: { alias: string; reference: string; architecture: string }[],
  after: (isBack: boolean) => void,
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
    after(true);
  });
}

/** Waits until none of these tasks runs any more. */
async function ends(ids: Set<string>): Promise<void> {
  const isRunning = () => tasks.list.some((task) => ids.has(task.id) && task.state === "started");
  await tasks.read();
  // While the list can't be read it is not known.
  while (tasks.error !== null || isRunning()) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    await tasks.read();
  }
}

export async function cancel(id: string): Promise<void> {
  await attempt(async () => {
    settled((await ask(CancelTaskDocument, { id })).cancel_task);
    toasts.good(t.tasks.cancelling);
    void tasks.read();
  });
}
