// What is chosen above the list of images, as the server's filter language has it.

export interface Chosen {
  text: string;
  registry: string;
  architecture: string;
  accelerator: string;
  /** `yes`, `no` or nothing. */
  installed: string;
  stale: string;
}

/** A text as the filter language quotes it. */
export function quoted(text: string): string {
  return JSON.stringify(text);
}

/** Every word must be somewhere in the names; `%` and `_` mean themselves. */
export function words(text: string): string[] {
  return text.trim().split(/\s+/).filter(Boolean).slice(0, 8);
}

function like(word: string): string {
  return quoted(`%${word.replace(/[\\%_]/g, "\\$&")}%`);
}

/** Null asks for everything. */
export function filterOf(chosen: Chosen): string | null {
  const parts = words(chosen.text).map((word) => {
    const pattern = like(word);
    return `(canonical ilike ${pattern} | humanized_name ilike ${pattern})`;
  });
  if (chosen.registry) parts.push(`registry == ${quoted(chosen.registry)}`);
  if (chosen.architecture) parts.push(`architecture == ${quoted(chosen.architecture)}`);
  if (chosen.accelerator) parts.push(`accelerators contains ${quoted(chosen.accelerator)}`);
  if (chosen.installed) parts.push(`installed == ${chosen.installed === "yes"}`);
  if (chosen.stale) parts.push(`stale == ${chosen.stale === "yes"}`);
  return parts.length > 0 ? parts.join(" & ") : null;
}
