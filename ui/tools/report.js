// How measurements are written down.

export const middle = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
export const ms = (number) => `${number.toFixed(1)} ms`;
export const line = (what, value, verdict = "") =>
  console.log(`  ${what.padEnd(58)} ${value.padStart(12)}${verdict}`);
/** What there is a goal for. */
export const held = (what, value, most) =>
  line(what, ms(value), `   at most ${most} ms: ${value <= most ? "ok" : "MISSED"}`);
