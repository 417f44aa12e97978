// The table: columns, cells, and only as many rows in the page as the window shows.

import { h } from "./api.js";
import { abstains, reasons, verdicts } from "./worklist-order.js";
import { listed, modality, percent, short, spoken } from "./words.js";

const SPARE = 8; // rows drawn above and below the window while it scrolls, so that it shows no gap
const VERDICTS = [["agree", "✓", "agree"], ["disagree", "✗", "disagree"], ["unsure", "?", "unsure"]];

/** The columns of a view: [{key, name, kind}]. */
export function columns(told, task) {
  const tasks = told.tasks.filter((one) => !task || one.name === task);
  return [
    { key: "id", name: "Patient", kind: "id" },
    ...told.covariates.map((name) => ({ key: `cov:${name}`, name: name.charAt(0).toUpperCase() + name.slice(1), kind: "cov", of: name })),
    ...tasks.map((one) => ({ key: `task:${one.name}`, name: one.name, kind: "task", of: one })),
    { key: "reliance", name: "Why not to rely", kind: "reliance" },
    { key: "missing", name: "Missing", kind: "missing" },
    { key: "pictures", name: "Pictures", kind: "pictures" },
    { key: "reviews", name: "Reviews", kind: "reviews" },
  ];
}

/** A table that shows any list of patients; `draw(index)` brings a row into the window and marks it. */
export class Rows {
  constructor(scroller, sort) {
    this.scroller = scroller;
    this.sort = sort;
    this.patients = [];
    this.at = 0;
    this.drawn = null;
    this.every = false; // all rows, for printing
    scroller.addEventListener("scroll", () => { this.asked ??= requestAnimationFrame(() => { this.asked = undefined; this.fill(); }); }, { passive: true });
    new ResizeObserver(() => this.fill()).observe(scroller);
    window.addEventListener("beforeprint", () => { this.every = true; this.fill(true); });
    window.addEventListener("afterprint", () => { this.every = false; this.fill(true); });
  }

  /** Makes the head anew, for other columns or another order. */
  head(view, told) {
    this.view = view;
    this.columns = columns(told, view.task);
    const by = view.sort.replace(/^-/, "");
    const cells = this.columns.map(({ key, name, kind }) =>
      h("th", { scope: "col", class: kind, "data-key": key, "aria-sort": by === key ? (view.sort.startsWith("-") ? "descending" : "ascending") : null },
        h("button", { type: "button", title: `Sort by ${name}`, click: () => this.sort(key) },
          h("span", { class: "of" }, name), h("span", { class: "arrow", "aria-hidden": "true" }, by !== key ? "" : view.sort.startsWith("-") ? "▼" : "▲"))));
    const focused = this.scroller.contains(document.activeElement) ? document.activeElement.closest("th")?.dataset.key : undefined;
    this.body = h("tbody");
    this.made = new Map(); // rows of this head, by patient: what was seen once is drawn at once
    this.table = h("table", { class: view.outcomes ? "with-outcomes" : null, style: `--tasks:${this.columns.filter((one) => one.kind === "task").length}` }, h("caption", { class: "sr" }, "Patients and what the model says of them"), h("thead", {}, h("tr", { "aria-rowindex": 1 }, cells)), this.body);
    this.scroller.replaceChildren(this.table);
    if (focused) [...this.table.querySelectorAll("th")].find((cell) => cell.dataset.key === focused)?.querySelector("button").focus();
  }

  /** Shows these patients; keeps the marked one where it is still among them. */
  show(patients, mark) {
    this.patients = patients;
    this.at = Math.max(0, patients.findIndex((one) => one.id === mark));
    this.table.setAttribute("aria-rowcount", patients.length + 1);
    this.fill(true, 1); // few more than are seen: this happens with every key of a search
  }

  /** Draws the rows of the window. */
  fill(anew = false, spare = SPARE) {
    if (!this.body) return;
    const high = this.high(), seen = Math.ceil(this.scroller.clientHeight / high), count = this.patients.length;
    const top = Math.floor(this.scroller.scrollTop / high);
    // in steps of a few rows: a scroll by one row draws nothing
    const first = this.every ? 0 : Math.max(0, Math.min(top, count - seen) - spare - (top % 4));
    const last = this.every ? count : Math.min(count, first + seen + 2 * spare + 4);
    if (!anew && this.drawn === `${first}-${last}`) return;
    this.drawn = `${first}-${last}`;
    const held = this.body.contains(document.activeElement) && !anew;
    const space = (rows) => rows > 0 && h("tr", { class: "space", "aria-hidden": "true" }, h("td", { style: `height:${rows * high}px` }));
    const rows = this.patients.slice(first, last).map((patient, k) => this.row(patient, first + k));
    this.body.replaceChildren(...[space(first), ...rows, space(count - last)].filter(Boolean));
    if (!count) this.body.append(h("tr", { class: "none" }, h("td", { colspan: [...this.table.tHead.rows[0].cells].filter((cell) => cell.offsetWidth).length }, "No patient is like this. Clear the search or a filter.")));
    if (held) this.link(this.at)?.focus({ preventScroll: true });
  }

  /** Marks a row, brings it into the window and gives its link the focus. */
  go(index, focus = true) {
    if (!this.patients.length) return;
    this.at = Math.max(0, Math.min(index, this.patients.length - 1));
    const high = this.high(), head = this.table.tHead.offsetHeight, top = this.at * high, room = this.scroller.clientHeight - head - high;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
    this.fill();
    this.body.querySelector("tr.at")?.classList.remove("at");
    const link = this.link(this.at);
    link?.closest("tr").classList.add("at");
    if (focus) link?.focus({ preventScroll: true });
  }

  high() {
    return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")) || 46;
  }

  link(index) {
    return this.body.querySelector(`tr[aria-rowindex="${index + 2}"] a`);
  }

  row(patient, index) {
    if (!this.made.has(patient.id)) this.made.set(patient.id, h("tr", {}, this.columns.map((column) => CELLS[column.kind](patient, column, this.view))));
    const row = this.made.get(patient.id);
    row.setAttribute("aria-rowindex", index + 2);
    row.classList.toggle("at", index === this.at);
    return row;
  }
}

const clamped = (text) => h("div", { class: "clamp" }, text);

const CELLS = {
  id: (patient, _, view) => h("th", { scope: "row", class: "id" },
    h("a", { href: `/patient?${new URLSearchParams(view.task ? { id: patient.id, task: view.task } : { id: patient.id })}`, title: patient.id }, patient.id),
    h("div", { class: "under", "aria-hidden": "true" }, Object.values(patient.covariates).join(" · "))),
  cov: (patient, { of }) => h("td", { class: "cov", title: patient.covariates[of] }, patient.covariates[of] ?? "–"),
  task: (patient, { of }, view) => prediction(patient, of, view),
  reliance: (patient, _, view) => {
    const told = reasons(patient, view.task).map((reason) => spoken(reason, [...(patient.present ?? []), ...patient.missing]));
    const whole = patient.abstains && h("strong", {}, told.length ? "Do not rely: " : "Do not rely on it. ");
    const lacks = patient.missing.length > 0 && h("span", { class: "lacks" }, `${told.length ? "; " : ""}without ${listed(patient.missing.map(modality))}`);
    return h("td", { class: "reliance" }, h("div", { class: "clamp" }, whole, told.join("; "), lacks), !whole && !told.length && h("span", { class: lacks ? "soft wide" : "soft" }, "–"));
  },
  missing: (patient) => h("td", { class: "missing" }, clamped(patient.missing.length ? patient.missing.map(modality).join(", ") : "–")),
  pictures: (patient) => h("td", { class: "pictures" },
    [["slide", patient.slides], ["scan", patient.scans]].filter(([, n]) => n).map(([word, n]) => h("div", {}, `${n} ${word}${n > 1 ? "s" : ""}`)),
    !patient.slides && !patient.scans && h("span", { class: "soft" }, "–")),
  reviews: (patient, _, view) => {
    const said = verdicts(view.last, patient, view.task);
    const counts = VERDICTS.map(([verdict, sign, word]) => [said.filter((one) => one === verdict).length, sign, word]).filter(([n]) => n);
    return h("td", { class: "reviews" }, counts.map(([n, sign, word]) =>
      h("span", { class: word, title: `${n} ${word}` }, h("span", { "aria-hidden": "true" }, `${sign} ${n} `), h("span", { class: "sr" }, `${n} ${word} `))), !counts.length && h("span", { class: "soft" }, "–"));
  },
};

function prediction(patient, task, view) {
  const one = patient.tasks[task.name];
  if (!one) return h("td", { class: "task" }, h("span", { class: "soft", title: "no prediction" }, "–"));
  const grey = abstains(patient, task.name);
  const several = one.set && one.set.length > 1;
  const words = several ? listed(one.set, "or") : said(one, task);
  const why = several ? `undecided between ${listed(one.set)}; the likeliest is ${one.said}` : one.set?.length === 0 && task.classes.length ? "undecided: no class is likely enough" : one.abstains ? "undecided" : "not to be relied on";
  return h("td", { class: grey ? "task greyed" : "task" },
    h("div", { class: "said", title: grey ? `${words}: ${why}` : words }, h("span", { class: "words" }, words),
      grey && h("span", { class: "chip", "aria-hidden": "true" }, "?"), grey && h("span", { class: "sr" }, ` (${why})`)),
    one.confidence === null
      ? one.interval && h("div", { class: "sure" }, `${short(one.interval[0])} to ${short(one.interval[1])}`)
      : h("div", { class: "sure" },
        h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill", style: `width:${100 * one.confidence}%` })),
        h("span", { class: "number" }, h("span", { class: "sr" }, "confidence "), percent(one.confidence))),
    view.outcomes && h("div", { class: one.known === null ? "soft" : "known", title: one.known ?? "outcome not known" }, h("span", { class: "sr" }, "outcome "), brief(one.known) ?? "not known"));
}

// of a survival: the cell is narrow, its tooltip has the whole sentence
const brief = (known) => known?.replace(/^event on day /, "event, day ").replace(/^no event until day /, "none to day ");

/** What is predicted, in words: a class, the event by a time, a number, or the risk alone. */
export function said(one, task) {
  if (task.kind === "survival") {
    const by = one.horizon_days === null ? "" : ` ${one.said === "event" ? "by" : "to"} ${short(Math.round(one.horizon_days / 36.525) / 10)} y`;
    return one.said === null ? `risk ${short(one.risk)}` : `${one.said}${by}`;
  }
  if (task.kind === "regression") return `${short(one.value)} ${task.unit ?? ""}`.trim();
  return one.said ?? "–";
}
