// Numbers and times for people.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Decimal units, as registries and disks count. */
export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return "–";
  let value = Math.max(0, count);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit] ?? "B"}`;
}

const whole = new Intl.NumberFormat("en");

export function number(count: number | null | undefined): string {
  return count === null || count === undefined ? "–" : whole.format(count);
}

const STEPS: [number, Intl.RelativeTimeFormatUnit][] = [
  [60, "second"],
  [3_600, "minute"],
  [86_400, "hour"],
  [2_592_000, "day"],
  [31_536_000, "month"],
  [Infinity, "year"],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

/** `5 min. ago`. */
export function ago(when: string | null | undefined, now = Date.now()): string {
  const then = when ? Date.parse(when) : NaN;
  if (Number.isNaN(then)) return "–";
  const seconds = (then - now) / 1000;
  if (Math.abs(seconds) < 5) return "now";
  let size = 1;
  for (const [limit, unit] of STEPS) {
    if (Math.abs(seconds) < limit) return relative.format(Math.trunc(seconds / size), unit);
    size = limit;
  }
  return "–";
}

const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function moment(when: string | null | undefined): string {
  const then = when ? new Date(when) : null;
  return then && !Number.isNaN(then.getTime()) ? exact.format(then) : "–";
}

/** `1 h 4 min`, `12 s`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
}

/** `sha256:0123456789ab…`: enough to tell two apart. */
export function shortDigest(digest: string | null | undefined): string {
  const hex = digest?.split(":")[1];
  return hex ? hex.slice(0, 12) : "–";
}
