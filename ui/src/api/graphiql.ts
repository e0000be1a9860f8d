// GraphiQL is large, and only one page has a use for it: its files are fetched when that page is opened.

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

export async function tool(): Promise<Tool> {
  if (!document.querySelector(`link[href="${STYLE}"]`)) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = STYLE;
    document.head.append(link);
  }
  return (await import(/* @vite-ignore */ SCRIPT)) as Tool;
}
