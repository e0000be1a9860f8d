// The plans of several images as one: what each agent would have to do for all of them.

export interface Step {
  agent: string;
  step: string;
  bytes: number;
  free_bytes: number | null;
  fits: boolean | null;
  problem: string | null;
  /** Where it does not fit: whether it would once others are gone, and which. */
  fits_with_room?: boolean | null;
  room?: readonly { digest: string; names: readonly string[] }[];
}

export interface Line {
  agent: string;
  /** How many images take which step, the most frequent first. */
  steps: { step: string; count: number }[];
  /** At most: images share layers, and those are fetched once. */
  bytes: number;
  free: number | null;
  /** `no`: one of them alone will not fit. `unsure`: each will, but all together may not. */
  fits: "yes" | "unsure" | "no" | "unknown";
  /** What would go so that all of them fit, by name or digest; null if that would not do, or is not needed. */
  room: string[] | null;
}

export interface Plan {
  lines: Line[];
  bytes: number;
}

/** Sums up plans over the same agents. What does not fit comes first. */
export function summed(plans: readonly { agents: readonly Step[] }[]): Plan {
  const found = new Map<string, Step[]>();
  for (const { agents } of plans) {
    for (const step of agents) {
      const steps = found.get(step.agent);
      if (steps) steps.push(step);
      else found.set(step.agent, [step]);
    }
  }
  const lines = [...found].map(([agent, steps]) => line(agent, steps));
  const rank = { no: 0, unsure: 1, unknown: 2, yes: 2 };
  lines.sort((a, b) => rank[a.fits] - rank[b.fits]);
  return { lines, bytes: lines.reduce((sum, { bytes }) => sum + bytes, 0) };
}

function line(agent: string, steps: Step[]): Line {
  const counts = new Map<string, number>();
  for (const { step } of steps) counts.set(step, (counts.get(step) ?? 0) + 1);
  const bytes = steps.reduce((sum, step) => sum + step.bytes, 0);
  const free = steps.find((step) => step.free_bytes !== null)?.free_bytes ?? null;
  let fits: Line["fits"] = "yes";
  if (steps.some((step) => step.fits === false)) fits = "no";
  else if (free !== null && bytes > free) fits = "unsure";
  else if (bytes > 0 && free === null) fits = "unknown";
  const short = steps.filter((step) => step.fits === false);
  const canFit = short.length > 0 && short.every((step) => step.fits_with_room === true);
  return {
    agent,
    room: canFit ? short.flatMap((step) => (step.room ?? []).map((image) => image.names[0] ?? image.digest)) : null,
    steps: [...counts].map(([step, count]) => ({ step, count })).sort((a, b) => b.count - a.count),
    bytes,
    free,
    fits,
  };
}

/** Which of some agents a task is for. */
export interface Touched {
  names: string[];
  /** How many of them run which architecture, of those that the images have. */
  counts: [architecture: string, count: number][];
  /** How many agents are left out, because they run another architecture than the one that is wanted. */
  leftOut: number;
}

/**
 * Which of the named agents a task is for: those of the wanted architecture, or all of them if none is. Of an agent that
 * the server has not reached it is not known what it runs; it decides when it is.
 */
export function touched(
  matrix: {
    agents: readonly string[];
    architectures: readonly (string | null)[];
    rows: readonly { architecture: string }[];
  },
  named: readonly string[],
  wanted: string,
): Touched {
  const runs = new Map(matrix.agents.map((agent, place) => [agent, matrix.architectures[place] ?? null]));
  const names = named.filter((agent) => !wanted || (runs.get(agent) ?? wanted) === wanted);
  const known = [...new Set(matrix.rows.map((row) => row.architecture))].sort();
  const counts = known.map((name): [string, number] => [
    name,
    names.filter((agent) => runs.get(agent) === name).length,
  ]);
  return { names, counts: counts.filter(([, count]) => count > 0), leftOut: named.length - names.length };
}

/** Which of the named agents hold how many of these images, the newest of that name or an older one. */
export function holders(
  agents: readonly string[],
  rows: readonly { states: string }[],
  named: readonly string[],
): { agent: string; count: number }[] {
  const wanted = new Set(named);
  return agents.flatMap((agent, place) => {
    if (!wanted.has(agent)) return [];
    const count = rows.filter(({ states }) => states[place] === "p" || states[place] === "s").length;
    return count > 0 ? [{ agent, count }] : [];
  });
}
