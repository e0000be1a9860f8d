// The matrix' rows, read a piece at a time as they come into view.

import { ask } from "../api/ask.ts";
import { why } from "../api/failure.ts";
import { canonical } from "../api/image.ts";
import { PresenceImagesDocument, PresenceMatrixDocument, TaskAgentsDocument } from "../api/operations.ts";
import { tasks } from "../api/tasks.svelte.ts";
import type { Letter } from "./matrix.ts";

const CHUNK = 100;
/** Chunks kept; those longest not looked at go first. */
const MOST_CHUNKS = 30;

export interface Row {
  reference: string;
  name: string;
  architecture: string;
  /** A letter per agent. */
  states: string;
}

export class Rows {
  total = $state(0);
  known = $state(false);
  agents = $state.raw<string[]>([]);
  /** What each of the agents runs, if that is known. */
  #architectures: (string | null)[] = [];
  error = $state<string | null>(null);
  /** `reference agent` of what is being loaded or unloaded just now. */
  working = $state.raw(new Set<string>());
  #chunks = $state.raw(new Map<number, Row[]>());
  #asked = new Set<number>();
  #filter: string | null = null;
  #round = 0;
  /** The round that the rows are of; they stay until the first of the next are there. */
  #shown = 0;

  /** Starts over with other images. */
  show(filter: string | null): void {
    this.#filter = filter;
    this.#round += 1;
    this.#asked.clear();
    void this.#read(0);
  }

  row(place: number): Row | undefined {
    return this.#chunks.get(Math.floor(place / CHUNK))?.[place % CHUNK];
  }

  letter(row: Row | undefined, agent: number): Letter {
    if (!row) return " ";
    const isFor = (this.#architectures[agent] ?? row.architecture) === row.architecture;
    if (isFor && this.working.has(`${row.reference} ${this.agents[agent] ?? ""}`)) return "w";
    return (row.states[agent] ?? "u") as Letter;
  }

  /** Sees to it that these rows are there, or soon will be. */
  async need(first: number, last: number, isAnew = false): Promise<void> {
    const wanted: Promise<void>[] = [];
    for (let chunk = Math.floor(first / CHUNK); chunk <= Math.floor(Math.max(first, last) / CHUNK); chunk += 1) {
      if (isAnew || !this.#asked.has(chunk)) wanted.push(this.#read(chunk));
    }
    await Promise.all(wanted);
  }

  /** Reads what the running tasks are at work on. */
  async readWorking(): Promise<void> {
    const moving = tasks.running.filter((task) => task.kind !== "rescan").slice(0, 20);
    if (moving.length === 0) {
      if (this.working.size > 0) this.working = new Set();
      return;
    }
    const found = new Set<string>();
    for (const task of moving) {
      const answer = await ask(TaskAgentsDocument, { id: task.id }).catch(() => null);
      for (const item of answer?.background_task?.items ?? []) {
        if (item.state === "running" || item.state === "waiting") found.add(`${item.reference} ${item.agent}`);
      }
    }
    this.working = found;
  }

  async #read(chunk: number): Promise<void> {
    const round = this.#round;
    this.#asked.add(chunk);
    try {
      const page = await ask(PresenceImagesDocument, { filter: this.#filter, first: CHUNK, offset: chunk * CHUNK });
      const nodes = (page.image_nodes?.edges ?? []).flatMap((edge) => (edge?.node ? [edge.node] : []));
      const references = [...new Set(nodes.map(canonical))];
      const { presence_matrix } = await ask(PresenceMatrixDocument, { references });
      if (round !== this.#round) return;
      const states = new Map(presence_matrix.rows.map((row) => [`${row.reference} ${row.architecture}`, row.states]));
      const rows = nodes.map((node) => {
        const reference = canonical(node);
        const architecture = node.architecture ?? "";
        return {
          reference,
          architecture,
          name: `${node.name ?? ""}:${node.tag ?? ""}`,
          states: states.get(`${reference} ${architecture}`) ?? "",
        };
      });
      const chunks = this.#shown === round ? new Map(this.#chunks) : new Map<number, Row[]>();
      this.#shown = round;
      chunks.delete(chunk);
      chunks.set(chunk, rows);
      for (const old of [...chunks.keys()].slice(0, Math.max(0, chunks.size - MOST_CHUNKS))) {
        chunks.delete(old);
        this.#asked.delete(old);
      }
      this.#chunks = chunks;
      this.#architectures = presence_matrix.architectures;
      if (presence_matrix.agents.join() !== this.agents.join()) this.agents = presence_matrix.agents;
      this.total = page.image_nodes?.count ?? 0;
      this.known = true;
      this.error = null;
    } catch (thrown) {
      if (round !== this.#round) return;
      this.#asked.delete(chunk);
      this.error = why(thrown);
    }
  }
}
