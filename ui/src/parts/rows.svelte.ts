// The matrix' rows, read a piece at a time as they come into view.

import { ask } from "../api/ask.ts";
import { why } from "../api/failure.ts";
import { canonical } from "../api/image.ts";
import { PresenceImagesDocument, PresenceMatrixDocument, TaskAgentsDocument } from "../api/operations.ts";
import { tasks } from "../api/tasks.svelte.ts";
import type { Letter, Span } from "./matrix.ts";

const CHUNK = 100;
/** Chunks kept; those longest not looked at go first. */
const MOST_CHUNKS = 30;

function chunks({ first, last }: Span): number[] {
  const from = Math.floor(first / CHUNK);
  const count = Math.floor(Math.max(first, last) / CHUNK) - from + 1;
  return Array.from({ length: count }, (_, place) => from + place);
}

export interface Row {
  reference: string;
  name: string;
  architecture: string;
  /** A letter per agent. */
  states: string;
}

function isSame(one: Row, other: Row): boolean {
  return one.states === other.states && one.reference === other.reference && one.architecture === other.architecture;
}

export class Rows {
  total = $state(0);
  known = $state(false);
  agents = $state.raw<string[]>([]);
  /** What each of the agents runs, if that is known. */
  #architectures: (string | null)[] = [];
  error = $state<string | null>(null);
  /** What is being loaded or unloaded just now: the agents, by reference. */
  working = $state.raw(new Map<string, Set<string>>());
  /** The most letters that a name read so far has. */
  longest = $state(0);
  #chunks = $state.raw(new Map<number, Row[]>());
  /** Those that were asked for, and are not to be asked for again when they come into view; done when they are there. */
  #asked = new Map<number, Promise<void>>();
  /** What was last said to be in view. */
  #view: Span = { first: 0, last: 0 };
  #filter: string | null = null;
  #round = 0;
  /** The round that the rows are of; they stay until the first of the next are there. */
  #shown = 0;

  /** Starts over with other images. */
  show(filter: string | null): void {
    this.#filter = filter;
    this.#round += 1;
    this.#asked.clear();
    void this.need({ first: 0, last: 0 });
    void this.need(this.#view);
  }

  row(place: number): Row | undefined {
    return this.#chunks.get(Math.floor(place / CHUNK))?.[place % CHUNK];
  }

  letter(row: Row | undefined, agent: number): Letter {
    if (!row) return " ";
    const isFor = (this.#architectures[agent] ?? row.architecture) === row.architecture;
    if (isFor && this.working.get(row.reference)?.has(this.agents[agent] ?? "")) return "w";
    return (row.states[agent] ?? "u") as Letter;
  }

  /** How often each letter stands in these rows, as far as they were read, under these agents. */
  tally(rows: Span, agents: number[]): Partial<Record<Letter, number>> {
    const found: Partial<Record<Letter, number>> = {};
    const working = this.working;
    for (let place = rows.first; place <= rows.last; place += 1) {
      const row = this.row(place);
      // Mostly nothing is at work, and this is done for a hundred thousand cells while somebody drags.
      const isStill = row && !working.has(row.reference);
      for (const agent of agents) {
        const letter = isStill ? ((row.states[agent] ?? "u") as Letter) : this.letter(row, agent);
        found[letter] = (found[letter] ?? 0) + 1;
      }
    }
    return found;
  }

  /** These rows are in view. */
  look(view: Span): void {
    this.#view = view;
    void this.need(view);
  }

  /** Sees to it that these rows are there, or soon will be. */
  async need(rows: Span): Promise<void> {
    await Promise.all(
      chunks(rows).map((chunk) => {
        const asked = this.#asked.get(chunk) ?? this.#read(chunk);
        this.#asked.set(chunk, asked);
        return asked;
      }),
    );
  }

  /** Reads anew what is in view, and these rows; the others when they come into view. */
  async renew(also: Span | null): Promise<void> {
    this.#asked.clear();
    await Promise.all([this.need(this.#view), also && this.need(also)]);
  }

  /** Reads what the running tasks are at work on, or will be next. */
  async readWorking(): Promise<void> {
    const moving = tasks.running.filter((task) => task.kind !== "rescan").slice(0, 20);
    if (moving.length === 0) {
      if (this.working.size > 0) this.working = new Map();
      return;
    }
    const found = new Map<string, Set<string>>();
    for (const task of moving) {
      const answer = await ask(TaskAgentsDocument, { id: task.id }).catch(() => null);
      for (const item of answer?.background_task?.items ?? []) {
        const reference = item.reference ?? "";
        found.set(reference, (found.get(reference) ?? new Set()).add(item.agent ?? ""));
      }
    }
    this.working = found;
  }

  async #read(chunk: number): Promise<void> {
    const round = this.#round;
    try {
      const page = await ask(PresenceImagesDocument, { filter: this.#filter, first: CHUNK, offset: chunk * CHUNK });
      const nodes = (page.image_nodes?.edges ?? []).flatMap((edge) => (edge?.node ? [edge.node] : []));
      const references = [...new Set(nodes.map(canonical))];
      const { presence_matrix } = await ask(PresenceMatrixDocument, { references });
      if (round !== this.#round) return;
      const states = new Map(presence_matrix.rows.map((row) => [`${row.reference} ${row.architecture}`, row.states]));
      const isFirst = this.#shown !== round;
      const kept = new Map(isFirst ? [] : this.#chunks);
      const before = kept.get(chunk) ?? [];
      const rows = nodes.map((node, place) => {
        const reference = canonical(node);
        const architecture = node.architecture ?? "";
        const row = {
          reference,
          architecture,
          name: `${node.name ?? ""}:${node.tag ?? ""}`,
          states: states.get(`${reference} ${architecture}`) ?? "",
        };
        // What is as it was stays the same thing, so that nothing of it is drawn again.
        const old = before[place];
        return old && isSame(old, row) ? old : row;
      });
      this.#shown = round;
      kept.delete(chunk);
      kept.set(chunk, rows);
      for (const old of [...kept.keys()].slice(0, Math.max(0, kept.size - MOST_CHUNKS))) {
        kept.delete(old);
        this.#asked.delete(old);
      }
      this.#chunks = kept;
      this.#architectures = presence_matrix.architectures;
      if (presence_matrix.agents.join() !== this.agents.join()) this.agents = presence_matrix.agents;
      this.longest = rows.reduce((most, row) => Math.max(most, row.name.length), isFirst ? 0 : this.longest);
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
