// The worklist: what the reader looks for, kept in the address, and the keys that move through it.

import { get, h } from "./api.js";
import { found, passes, sorted } from "./worklist-order.js";
import { Rows } from "./worklist-rows.js";

const KEPT = ["q", "task", "class", "site", "pictures", "reviews", "sort"];
const place = (id) => document.getElementById(id);
const view = { last: {}, outcomes: sessionStorage.getItem("mtl.outcomes") === "1" };
let told, rows, ordered, mark = sessionStorage.getItem("mtl.at");

/** Reads the view from the address. */
function read() {
  const query = new URLSearchParams(location.search);
  for (const name of KEPT) view[name] = query.get(name) ?? "";
  if (!told.tasks.some((task) => task.name === view.task)) view.task = view.class = "";
}

let waiting;
/** Writes the view into the address, once the reader pauses: browsers refuse an address that changes with every key. */
function write(now = false) {
  clearTimeout(waiting);
  if (!now) { waiting = setTimeout(write, 250, true); return; }
  const query = new URLSearchParams(KEPT.filter((name) => view[name]).map((name) => [name, view[name]])).toString();
  sessionStorage.setItem("mtl.list", query); // the way back from a patient
  if (`?${query}` !== (location.search || "?")) history.replaceState(null, "", query ? `/?${query}` : "/");
}

/** Fills the choices of the filters with what there is. */
function choices() {
  place("task").append(...told.tasks.map((task) => h("option", { value: task.name }, task.name)));
  view.siteColumn = told.covariates.find((name) => name.toLowerCase() === "site");
  const sites = [...new Set(told.patients.map((one) => one.covariates[view.siteColumn]).filter(Boolean))].sort();
  place("site").append(...sites.map((site) => h("option", { value: site }, site)));
  place("site").parentElement.hidden = sites.length < 2;
}

/** Sets the controls as the view is. */
function controls() {
  const task = told.tasks.find((one) => one.name === view.task);
  const classes = !task ? [] : task.classes.length ? task.classes : [...new Set(told.patients.map((one) => one.tasks[task.name]?.said).filter(Boolean))].sort();
  place("class").replaceChildren(h("option", { value: "" }, "any"), ...classes.map((name) => h("option", { value: `=${name}` }, name)), h("option", { value: "?" }, "undecided"));
  place("class").parentElement.hidden = !task;
  for (const name of ["q", "task", "class", "site", "pictures", "reviews"]) {
    if (place(name).value !== view[name]) place(name).value = view[name];
    if (place(name).value !== view[name]) { view[name] = ""; place(name).value = ""; } // an old link to what is gone
  }
  place("outcomes").checked = view.outcomes;
  place("marked").hidden = !view.outcomes;
}

/** Sorts and filters anew and shows the list; the search alone goes through what is sorted already. */
function show(all = true) {
  if (all) {
    controls();
    ordered = sorted(told.patients.filter((one) => passes(one, view)), view);
    rows.head(view, told);
    place("first").setAttribute("aria-pressed", String(!view.sort));
  }
  const shown = found(ordered, view.q);
  rows.show(shown, mark);
  place("count").textContent = `${shown.length} of ${told.patients.length}`;
  place("clear").hidden = !["q", "task", "site", "pictures", "reviews"].some((name) => view[name]);
  // who searched for one patient goes on in the whole list
  sessionStorage.setItem("mtl.order", JSON.stringify((shown.length > 1 ? shown : ordered).map((one) => one.id)));
  write();
}

function sort(key) {
  view.sort = view.sort === key ? `-${key}` : view.sort === `-${key}` ? "" : key;
  rows.scroller.scrollTop = 0;
  show();
}

function listen() {
  place("q").addEventListener("input", (event) => { view.q = event.target.value; mark = null; rows.scroller.scrollTop = 0; show(false); });
  place("tools").addEventListener("submit", (event) => event.preventDefault());
  place("tools").addEventListener("change", ({ target }) => {
    if (target.id === "q") return; // heard key by key; this comes when the field is left
    if (target.id === "outcomes") { view.outcomes = target.checked; sessionStorage.setItem("mtl.outcomes", target.checked ? "1" : "0"); }
    else { view[target.id] = target.value; if (target.id === "task") view.class = ""; rows.scroller.scrollTop = 0; }
    show();
  });
  place("tools").addEventListener("reset", (event) => {
    event.preventDefault();
    for (const name of ["q", "task", "class", "site", "pictures", "reviews"]) view[name] = "";
    show();
    place("q").focus();
  });
  place("first").addEventListener("click", () => { view.sort = ""; rows.scroller.scrollTop = 0; show(); });
  rows.scroller.addEventListener("focusin", ({ target }) => { const index = indexOf(target); if (index !== null && index !== rows.at) rows.go(index, false); });
  rows.scroller.addEventListener("click", ({ target }) => {
    const index = indexOf(target);
    if (index === null) return;
    mark = rows.patients[index].id;
    sessionStorage.setItem("mtl.at", mark); // so that coming back finds the row again
    if (!target.closest("a") && !String(getSelection())) rows.go(index);
  });
  document.addEventListener("keydown", keys);
  window.addEventListener("pagehide", () => write(true));
  window.addEventListener("popstate", () => { read(); show(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) reviews().then(() => show()); });
}

function indexOf(element) {
  const row = element.closest?.("tbody tr[aria-rowindex]");
  return row ? Number(row.getAttribute("aria-rowindex")) - 2 : null;
}

/** "/" searches, arrows (j, k) move the row, Enter opens it, Escape clears the search. */
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, textarea")) return;
  const searching = event.target === place("q"), inside = rows.scroller.contains(event.target) && event.target.tagName === "A";
  const page = Math.max(1, Math.floor(rows.scroller.clientHeight / rows.high()) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key === "/" && !searching) { place("q").focus(); place("q").select(); }
  else if (event.key === "Escape" && searching && view.q) { place("q").value = view.q = ""; show(false); }
  else if (event.key === "Enter" && (searching || event.target === document.body)) rows.link(rows.at)?.click();
  else if (event.key in steps && !(searching && !event.key.startsWith("Arrow"))) {
    if (searching && event.key === "ArrowUp") return;
    rows.go(inside || Math.abs(steps[event.key]) > 1 ? rows.at + steps[event.key] : rows.at); // the first key enters the list
  } else return;
  event.preventDefault();
}

/** Shows the whole text of a cell that is cut short, beside it, while it is pointed at or its row has the focus. */
function wholeTexts(scroller) {
  const note = h("div", { class: "whole", "aria-hidden": "true", hidden: true });
  document.body.append(note);
  const of = (target) => target.closest?.(".clamp") ?? target.closest?.("td.reliance")?.querySelector(".clamp") ?? (target.matches?.("a") ? target.closest("tr")?.querySelector(".reliance .clamp") : null);
  const on = ({ target }) => {
    const cut = of(target);
    if (!cut || (cut.scrollHeight <= cut.clientHeight + 1 && cut.scrollWidth <= cut.clientWidth)) { note.hidden = true; return; }
    note.textContent = cut.textContent;
    note.hidden = false;
    const box = cut.getBoundingClientRect(), below = box.bottom + note.offsetHeight + 8 < innerHeight;
    note.style.left = `${Math.max(8, Math.min(box.left, innerWidth - note.offsetWidth - 8))}px`;
    note.style.top = `${below ? box.bottom + 2 : box.top - note.offsetHeight - 2}px`;
  };
  scroller.addEventListener("mouseover", on);
  scroller.addEventListener("focusin", on);
  for (const off of ["mouseleave", "focusout", "scroll"]) scroller.addEventListener(off, () => { note.hidden = true; });
}

const reviews = async () => { view.last = (await get("/api/reviews")).last ?? {}; };

async function start() {
  const scroller = place("worklist");
  try {
    [told] = await Promise.all([get("/api/worklist"), reviews()]);
  } catch (fault) {
    scroller.replaceChildren(h("p", { role: "alert", class: "warn" }, `The worklist could not be read: ${fault.message}`));
    return;
  }
  rows = new Rows(scroller, sort);
  wholeTexts(scroller);
  choices();
  read();
  listen();
  show();
  scroller.removeAttribute("aria-busy");
  if (mark !== null && rows.patients[rows.at]?.id === mark) rows.go(rows.at);
}

await start();
