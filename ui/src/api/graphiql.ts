// GraphiQL is large, and only one page has a use for it: its files are fetched when that page is opened.

import { t } from "../text.ts";
import { Failure } from "./failure.ts";

export interface Mounted {
  unmount: () => void;
}

export interface Options {
  fetcher: (operation: unknown) => Promise<unknown>;
  theme: "light" | "dark";
  /** What stands in the editor at first. */
  welcome: string;
}

export interface Tool {
  mount: (host: HTMLElement, options: Options) => Mounted;
}

const SCRIPT = "/graphiql.js";
const STYLE = "/graphiql.css";

/** Both of its files: the editor measures its letters when it is mounted, so the style must be there by then. */
export async function tool(): Promise<Tool> {
  const [loaded] = await Promise.all([import(/* @vite-ignore */ SCRIPT) as Promise<Tool>, style()]);
  return loaded;
}

function style(): Promise<void> {
  if (document.querySelector(`link[href="${STYLE}"]`)) return Promise.resolve();
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = STYLE;
  return new Promise((resolve, reject) => {
    link.onload = () => resolve();
    link.onerror = () => {
      link.remove();
      reject(new Failure("lost", t.failure.lost));
    };
    document.head.append(link);
  });
}
