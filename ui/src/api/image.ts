// An image's names.

export interface Named {
  registry: string | null;
  name: string | null;
  tag: string | null;
  architecture?: string | null;
}

/** `registry/name:tag`. */
export function canonical(image: Named): string {
  return `${image.registry ?? ""}/${image.name ?? ""}:${image.tag ?? ""}`;
}

/** One row of the catalog: the canonical name and the architecture. */
export function rowKey(image: Named): string {
  return `${canonical(image)} ${image.architecture ?? ""}`;
}

/** Takes a row's key apart again. */
export function ofKey(key: string): { reference: string; architecture: string } {
  const [reference = "", architecture = ""] = key.split(" ");
  return { reference, architecture };
}
