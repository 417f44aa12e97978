// What a page looks at now: task, slide, place, map. Kept in the address, so that a link leads to the same view.

const KEPT = ["task", "slide", "x", "y", "zoom", "map", "opacity", "colours", "least", "scan", "scanmap", "scanopacity", "model", "pane"];
const NUMBERS = new Set(["slide", "x", "y", "zoom", "opacity", "least", "scan", "scanopacity"]);

class State extends EventTarget {
  constructor() {
    super();
    const query = new URLSearchParams(location.search);
    for (const key of KEPT) {
      const said = query.get(key);
      this[key] = said === null ? undefined : NUMBERS.has(key) ? finite(said) : said;
    }
  }

  /** Changes some keys, tells whoever listens to one that changed, and keeps the address in step. */
  set(changes) {
    const changed = Object.entries(changes).filter(([key, value]) => this[key] !== value);
    for (const [key, value] of changed) this[key] = value;
    if (!changed.length) return;
    const query = new URLSearchParams(location.search);
    for (const [key, value] of changed) {
      if (!KEPT.includes(key)) continue;
      if (value === undefined || value === null) query.delete(key);
      else query.set(key, typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : value);
    }
    history.replaceState(null, "", `${location.pathname}?${query}`);
    for (const [key, value] of changed) this.dispatchEvent(new CustomEvent(key, { detail: value }));
  }

  /** Calls `listener(value)` whenever the key changes. */
  on(key, listener) {
    this.addEventListener(key, (event) => listener(event.detail));
  }
}

const finite = (said) => (Number.isFinite(Number(said)) ? Number(said) : undefined);

/** The one state of the page. */
export const state = new State();
