// Words of the expression language that fit the agents there are.

import { t } from "../text.ts";

export interface Chip {
  text: string;
  about: string;
}

interface Agent {
  id: string | null;
  status: string | null;
  scaling_group: string | null;
  labels: { key: string; value: string }[];
}

/** So many chips at most: what helps is what can be read at a glance. */
const MOST = 14;
const NAME = /^[A-Za-z0-9_.-]+$/;

export function chipsOf(agents: (Agent | null)[]): Chip[] {
  const there = agents.filter((agent) => agent !== null);
  if (there.length === 0) return [];
  const chips: Chip[] = [{ text: "*", about: t.agentSet.all }];
  const add = (text: string, about: string) => {
    if (!chips.some((chip) => chip.text === text)) chips.push({ text, about });
  };
  for (const { scaling_group } of there) {
    if (scaling_group && NAME.test(scaling_group)) add(`@${scaling_group}`, t.agentSet.group(scaling_group));
  }
  if (there.some((agent) => agent.status !== "ALIVE")) add("*&{status=alive}", t.agentSet.alive);
  const prefixes = new Set(there.map(({ id }) => /^([A-Za-z_.-]+)\d+$/.exec(id ?? "")?.[1]).filter(Boolean));
  for (const prefix of prefixes) if (prefixes.size > 1) add(`${prefix}*`, t.agentSet.prefix(prefix ?? ""));
  for (const { labels } of there)
    for (const { key, value } of labels) add(`{${key}=${value}}`, t.agentSet.labelled(key, value));
  if (there.length <= 4) for (const { id } of there) if (id && NAME.test(id)) add(id, t.agentSet.one(id));
  return chips.slice(0, MOST);
}

/** A union with what is there. Behind a filter it needs parentheses: unions come first in this language. */
export function withChip(expression: string, chip: string): string {
  const before = expression.trim();
  if (!before) return chip;
  const more = chip.includes("&") ? `(${chip})` : chip;
  return /[&!]/.test(before.replace(/\{[^}]*\}/g, "")) ? `(${before}),${more}` : `${before},${more}`;
}
