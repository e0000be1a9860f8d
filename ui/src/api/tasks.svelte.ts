// The background tasks, live on every page: the list is read now and then, and the first running ones are followed.

import { ask } from "./ask.ts";
import { connection } from "./connection.svelte.ts";
import { TasksDocument, type TaskLineFragment } from "./operations.ts";
import { session } from "./session.svelte.ts";

/** A browser keeps six connections to one server, for all its tabs together; streams may not take them all. */
const MOST_STREAMS = 2;
const WHILE_RUNNING = 2_000;
const WHILE_IDLE = 4_000;
/** How many of the newest tasks are shown. */
export const MOST_TASKS = 100;

interface Told {
  message: string;
  current_progress: number;
  total_progress: number;
}

class Tasks {
  list = $state.raw<TaskLineFragment[]>([]);
  /** Whether the list was read at all. */
  known = $state(false);
  error = $state<string | null>(null);
  /** Counts the tasks seen to end: what they changed is to be read again. */
  ended = $state(0);

  #streams = new Map<string, EventSource>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The reading that is under way, and the one that begins when it is over. */
  #reading: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  get running(): TaskLineFragment[] {
    return this.list.filter((task) => task.state === "started");
  }

  start(): () => void {
    const looked = () => {
      if (document.hidden) this.#closeAll();
      else void this.read();
    };
    document.addEventListener("visibilitychange", looked);
    void this.read();
    return () => {
      document.removeEventListener("visibilitychange", looked);
      clearTimeout(this.#timer);
      this.#closeAll();
    };
  }

  /** Reads the list; to be called when a task was started here. What was begun before the call is in it afterwards. */
  read = (): Promise<void> => {
    if (!this.#reading) {
      this.#reading = this.#read().finally(() => (this.#reading = null));
      return this.#reading;
    }
    // The answer that is on its way may be older than what the caller has done.
    this.#next ??= this.#reading.then(() => {
      this.#next = null;
      return this.read();
    });
    return this.#next;
  };

  async #read(): Promise<void> {
    clearTimeout(this.#timer);
    if (session.state !== "in") return this.#again();
    try {
      const answer = await ask(TasksDocument, { limit: MOST_TASKS });
      this.#take(answer.background_tasks ?? []);
      this.error = null;
    } catch (thrown) {
      this.error = thrown instanceof Error ? thrown.message : String(thrown);
    }
    this.#again();
  }

  #again(): void {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    this.#timer = setTimeout(this.read, this.running.length > 0 || connection.lost ? WHILE_RUNNING : WHILE_IDLE);
  }

  #take(fresh: TaskLineFragment[]): void {
    const before = new Map(this.list.map((task) => [task.id, task]));
    const ended = fresh.filter((task) => task.state !== "started" && before.get(task.id)?.state === "started");
    // A task that came and went between two readings has changed things too.
    const missed = this.known ? fresh.filter((task) => task.state !== "started" && !before.has(task.id)) : [];
    this.list = fresh;
    this.known = true;
    if (ended.length + missed.length > 0) this.ended += 1;
    this.#follow();
  }

  #follow(): void {
    const wanted = document.hidden ? [] : this.running.slice(0, MOST_STREAMS).map((task) => task.id);
    for (const [id, stream] of this.#streams) {
      if (!wanted.includes(id)) {
        stream.close();
        this.#streams.delete(id);
      }
    }
    for (const id of wanted) if (!this.#streams.has(id)) this.#streams.set(id, this.#open(id));
  }

  #open(id: string): EventSource {
    const stream = new EventSource(`/events/background-task?task_id=${encodeURIComponent(id)}`);
    const close = () => {
      stream.close();
      this.#streams.delete(id);
    };
    stream.addEventListener("bgtask_updated", (event) => {
      const told = JSON.parse(event.data as string) as Told;
      this.list = this.list.map((task) =>
        task.id === id
          ? {
              ...task,
              message: told.message,
              current_progress: told.current_progress,
              total_progress: told.total_progress,
            }
          : task,
      );
    });
    for (const last of ["bgtask_done", "bgtask_failed", "bgtask_cancelled"]) {
      stream.addEventListener(last, () => {
        close();
        void this.read();
      });
    }
    stream.addEventListener("server_close", close);
    stream.onopen = () => connection.succeed();
    stream.onerror = () => {
      // It comes back by itself, unless it was refused; then the list tells.
      if (stream.readyState === EventSource.CLOSED) close();
      void connection.beat();
    };
    return stream;
  }

  #closeAll(): void {
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
  }
}

export const tasks = new Tasks();

/** What a task is done to: the image of a transfer, without its agents; the registry of a rescan, or null for all. */
export function subjectOf(task: { kind: string; subject: string }): string | null {
  if (task.kind !== "rescan") return task.subject.split(" on ")[0] ?? "";
  return task.subject.includes(" ") ? null : task.subject;
}

/** How far it is, from 0 to 1; null while that can't be told. */
export function share(task: { current_progress: number; total_progress: number }): number | null {
  return task.total_progress > 0 ? Math.min(1, task.current_progress / task.total_progress) : null;
}
