// Text from elsewhere, made fit to be shown: what would turn, hide or flood it is written out or cut.

/** Controls, direction overrides, invisible joiners and tags: they change how other text looks. */
const TRICKS =
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** Longest text shown in one place unless the place says otherwise. */
const MOST = 300;

/** One line of harmless text, no longer than so many characters. */
export function plain(text: string | null | undefined, most = MOST): string {
  if (!text) return "";
  const cut =
    text.length > most
      ? `${Array.from(text.slice(0, most * 2))
          .slice(0, most)
          .join("")}…`
      : text;
  return cut.replace(TRICKS, (trick) => (trick === "\n" || trick === "\t" ? " " : spelled(trick)));
}

/** The same for text of several lines. */
export function plainLines(text: string | null | undefined, most = 4_000): string {
  return (text ?? "")
    .slice(0, most)
    .split("\n")
    .map((line) => plain(line, most))
    .join("\n");
}

function spelled(trick: string): string {
  return `\\u{${(trick.codePointAt(0) ?? 0).toString(16)}}`;
}
