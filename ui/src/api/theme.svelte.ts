// Light, dark, or as the system has it; remembered in this browser.

export type Choice = "auto" | "light" | "dark";
const KEY = "wharf.theme";

function remembered(): Choice {
  try {
    const found = localStorage.getItem(KEY);
    return found === "light" || found === "dark" ? found : "auto";
  } catch {
    return "auto";
  }
}

class Theme {
  choice = $state<Choice>(remembered());

  apply(): void {
    if (this.choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.choice;
  }

  choose(choice: Choice): void {
    this.choice = choice;
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // A browser that keeps nothing still shows what was chosen.
    }
    this.apply();
  }
}

export const theme = new Theme();
