// The arithmetic of the matrix: what is in view, what is chosen, what stands in a cell.

export const CELL = 22;
/** With few agents there is room for more. */
export const WIDEST_CELL = 48;
export const ROW = 28;
/** Between these is the height of the agents' names, which stand upright. */
export const HEADS = { least: 56, most: 140 };
/** About as much as a letter of them takes. */
const LETTER = 6.8;
/** The same for names of images, and what is left free before and after those. */
const LETTER_OF_NAME = 7.1;
const PADDING = 28;

export type Letter = "p" | "s" | "a" | "u" | "w" | " ";

export interface Spot {
  row: number;
  column: number;
}

/** A rectangle of cells, both ends included. */
export interface Range {
  from: Spot;
  to: Spot;
}

export interface Span {
  first: number;
  last: number;
}

/**
 * Which of `count` pieces of this size are in view, with a few beyond each edge. They are always as many, wherever one
 * scrolls to, so that what leaves the view on one side is drawn again on the other, and nothing is made anew.
 */
export function inView(scroll: number, extent: number, size: number, count: number, beyond = 3): Span {
  const shown = Math.min(count, Math.ceil(Math.max(0, extent) / size) + 1 + 2 * beyond);
  const first = Math.max(0, Math.min(count - shown, Math.floor(scroll / size) - beyond));
  return { first, last: first + shown - 1 };
}

export function each(span: Span): number[] {
  return Array.from({ length: Math.max(0, span.last - span.first + 1) }, (_, place) => span.first + place);
}

export function sorted(range: Range): Range {
  return {
    from: { row: Math.min(range.from.row, range.to.row), column: Math.min(range.from.column, range.to.column) },
    to: { row: Math.max(range.from.row, range.to.row), column: Math.max(range.from.column, range.to.column) },
  };
}

export function contains(range: Range | null, row: number, column: number): boolean {
  if (!range) return false;
  const { from, to } = sorted(range);
  return row >= from.row && row <= to.row && column >= from.column && column <= to.column;
}

export function clamp(spot: Spot, rows: number, columns: number): Spot {
  const within = (value: number, count: number) => Math.max(0, Math.min(count - 1, value));
  return { row: within(spot.row, rows), column: within(spot.column, columns) };
}

/** Where an arrow key, Home, End or a page key leads; null for other keys. */
export function moved(spot: Spot, key: string, isFar: boolean, page: number): Spot | null {
  const far = Number.MAX_SAFE_INTEGER;
  switch (key) {
    case "ArrowUp":
      return { ...spot, row: spot.row - 1 };
    case "ArrowDown":
      return { ...spot, row: spot.row + 1 };
    case "ArrowLeft":
      return { ...spot, column: spot.column - 1 };
    case "ArrowRight":
      return { ...spot, column: spot.column + 1 };
    case "PageUp":
      return { ...spot, row: spot.row - page };
    case "PageDown":
      return { ...spot, row: spot.row + page };
    case "Home":
      return { row: isFar ? 0 : spot.row, column: 0 };
    case "End":
      return { row: isFar ? far : spot.row, column: far };
    default:
      return null;
  }
}

/** How wide the names and the cells are: few agents get more room, and the names all that is left. */
export function columnsOf(width: number, count: number): { side: number; cell: number } {
  const least = width < 560 ? 168 : width < 900 ? 240 : 340;
  const room = Math.max(0, width - least);
  const cell = count > 0 ? Math.max(CELL, Math.min(WIDEST_CELL, Math.floor(room / count))) : CELL;
  return { side: Math.max(least, width - count * cell), cell };
}

/** How many letters of a name there is room for beside the cells. */
export function lettersIn(side: number): number {
  return Math.floor((side - PADDING) / LETTER_OF_NAME);
}

/** How high the heads are, so that the longest name is read to its end, within reason. */
export function headOf(names: string[]): number {
  const longest = names.reduce((most, name) => Math.max(most, name.length), 0);
  return Math.max(HEADS.least, Math.min(HEADS.most, Math.ceil(longest * LETTER) + 20));
}
