// Where we are: the path, and what is behind the question mark. Links are ordinary links.

function here(): URL {
  return new URL(location.href);
}

class Route {
  #url = $state.raw(here());

  get path(): string {
    return this.#url.pathname;
  }

  /** `/access/users` is `["access", "users"]`. */
  get parts(): string[] {
    return this.#url.pathname.split("/").filter(Boolean).map(decode);
  }

  get(name: string): string {
    return this.#url.searchParams.get(name) ?? "";
  }

  go(to: string, replace = false): void {
    const url = new URL(to, location.href);
    if (url.href === this.#url.href) return;
    if (replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
    this.#url = url;
  }

  /** Changes some of the parameters; empty ones go away. Typing does not make history. */
  set(changes: Record<string, string>, replace = true): void {
    const url = here();
    for (const [name, value] of Object.entries(changes)) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    this.go(url.href, replace);
  }

  start(): () => void {
    const moved = () => {
      this.#url = here();
    };
    const clicked = (event: MouseEvent) => {
      if (event.defaultPrevented || event.button !== 0) return;
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = (event.target as Element | null)?.closest?.("a");
      if (!link || link.target || link.hasAttribute("download")) return;
      if (link.origin !== location.origin || link.hasAttribute("data-plain")) return;
      event.preventDefault();
      this.go(link.href);
    };
    window.addEventListener("popstate", moved);
    document.addEventListener("click", clicked);
    return () => {
      window.removeEventListener("popstate", moved);
      document.removeEventListener("click", clicked);
    };
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Route();
