// The GraphiQL page's own bundle: React and the editor, apart from the rest of the UI.

import { GraphiQL } from "graphiql";
import "graphiql/style.css";
import { createRoot } from "react-dom/client";
import type { Fetcher } from "@graphiql/toolkit";
import type { Mounted, Options } from "../src/api/graphiql.ts";

export function mount(host: HTMLElement, { fetcher, theme, welcome }: Options): Mounted {
  const root = createRoot(host);
  root.render(
    <GraphiQL fetcher={fetcher as Fetcher} forcedTheme={theme} defaultQuery={welcome} shouldPersistHeaders={false} />,
  );
  return { unmount: () => root.unmount() };
}
