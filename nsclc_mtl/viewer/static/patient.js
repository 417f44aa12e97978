// The patient page: lays out what /api/patient says, and lets each part draw itself.

import { get, h } from "./api.js";
import { exports } from "./exports.js";
import { features } from "./features.js";
import { link } from "./link.js";
import * as modalities from "./modalities.js";
import * as notes from "./notes.js";
import { printing } from "./printing.js";
import * as scan from "./scan.js";
import * as slide from "./slide.js";
import { state } from "./state.js";
import * as tasks from "./tasks.js";
import { listed, modality, spoken } from "./words.js";

const place = (id) => document.getElementById(id);
const id = place("patient").dataset.id;

/** The address of a patient's page that keeps task, kind of picture, maps with their opacity, and model. */
function address(patient) {
  const query = new URLSearchParams({ id: patient });
  for (const key of ["task", "pane", "map", "opacity", "colours", "scanmap", "scanopacity", "model"]) if (state[key] !== undefined) query.set(key, state[key]);
  return `/patient?${query}`;
}

/** {before, after, place, of}: the neighbours in the worklist as it was last sorted and filtered, else among all patients. */
function neighbours(detail) {
  let order = null;
  try { order = JSON.parse(sessionStorage.getItem("mtl.order")); } catch { /* no list was looked at */ }
  const at = Array.isArray(order) ? order.indexOf(detail.id) : -1;
  if (at < 0) return { before: detail.before, after: detail.after, place: detail.index + 1, of: detail.of };
  return { before: order[at - 1] ?? null, after: order[at + 1] ?? null, place: at + 1, of: order.length };
}

function head(detail) {
  const { before, after, place: number, of } = neighbours(detail);
  const facts = Object.entries(detail.covariates).map(([name, text]) => h("span", { class: "fact" }, h("span", { class: "soft" }, `${name} `), text));
  const step = (patient, word, keys) => patient === null
    ? h("button", { type: "button", disabled: true }, word)
    : h("a", { class: "button", href: address(patient), "data-step": word, title: `${patient} (${keys})`, click: (event) => { event.currentTarget.href = address(patient); } }, word);
  const models = detail.models.length > 1 && h("label", { class: "models" }, "model ",
    h("select", { id: "model", change: (event) => state.set({ model: event.target.value }) },
      detail.models.map((name) => h("option", { value: name, selected: name === detail.model }, name))));
  place("who").replaceChildren(
    h("h1", {}, detail.id), ...facts, ...[models].filter(Boolean),
    h("span", { class: "steps" },
      h("a", { href: `/compare?${new URLSearchParams(detail.models.length > 1 ? { a: detail.id, model_a: detail.model } : { a: detail.id })}` }, "Compare"), h("a", { href: "#notes" }, "Your reading"), link(),
      h("button", { type: "button", class: "print", click: () => print() }, "Print"),
      step(before, "Previous", "k or Alt+↑"), h("span", { class: "soft", title: "in the order of the worklist" }, `${number} of ${of}`), step(after, "Next", "j or Alt+↓")));
}

/** "Worklist" leads back to the list as it was filtered. */
function way() {
  const query = sessionStorage.getItem("mtl.list");
  if (query) document.querySelector('.bar nav a[href="/"]').href = `/?${query}`;
}

function banner(detail) {
  const names = [...detail.present, ...detail.missing];
  const absent = detail.missing.length ? `Predicted without ${listed(detail.missing.map(modality))}, which this patient lacks` : null;
  const others = detail.reasons.filter((reason) => !detail.missing.includes(reason.replace(/^no /, "")));
  const undecided = detail.tasks.filter((task) => task.abstains).map((task) => task.name);
  const reasons = [...others.map((reason) => sentence(spoken(reason, names))), absent, undecided.length ? `The model does not decide on ${listed(undecided)}` : null].filter(Boolean);
  if (!reasons.length) return place("banner").replaceChildren();
  place("banner").replaceChildren(h("div", { class: detail.abstains ? "banner strong" : "banner", role: "note" },
    h("strong", {}, detail.abstains ? "Do not rely on the model here." : "Read with caution."),
    h("ul", {}, reasons.map((reason) => h("li", {}, `${reason}.`)))));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function pictures(detail) {
  const panes = [["slides", detail.slides.length, slide], ["scans", detail.scans.length, scan]].filter(([, count]) => count);
  const frame = place("pictures");
  frame.hidden = !panes.length;
  place("patient").classList.toggle("no-pictures", !panes.length);
  if (!panes.length) return;
  const parts = new Map(panes.map(([name, , part]) => [name, { part, element: h("div", { id: name, class: "pane", role: "region", "aria-label": name }), mounted: false }]));
  const choices = [...panes.map(([name, count]) => [name, `${sentence(name)} (${count})`]), ...(panes.length > 1 ? [["both", "Side by side"]] : [])];
  const tabs = choices.map(([name, word]) => h("button", { type: "button", "data-pane": name, class: name === "both" ? "wide" : null, click: () => state.set({ pane: name }) }, word));
  const show = () => {
    const wanted = choices.some(([name]) => name === state.pane) ? state.pane : panes[0][0];
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.pane === wanted)));
    for (const [name, one] of parts) {
      one.element.hidden = wanted !== name && wanted !== "both";
      if (one.element.hidden || one.mounted) continue;
      one.mounted = true; // viewers measure their place, so each is made when it is first seen
      one.part.mount(one.element, detail, state);
    }
    window.dispatchEvent(new Event("resize"));
  };
  const whose = detail.models.length > 1 ? h("span", { class: "soft whose" }, `maps of ${detail.models[0]}`) : "";
  frame.replaceChildren(h("div", { class: "tabs" }, ...tabs, whose), h("div", { class: "panes" }, [...parts.values()].map((one) => one.element)));
  state.on("pane", show);
  show();
}

function evidence(detail) {
  const task = detail.tasks.find((one) => one.name === state.task) ?? detail.tasks[0];
  if (!task) return;
  const bars = h("div", { class: "modalities" });
  modalities.mount(bars, task);
  place("rests").replaceChildren(
    h("h2", {}, "What the prediction of ", h("em", {}, task.name), " rests on"),
    h("section", { class: "card" }, h("h3", {}, "Modalities"), bars),
    h("section", { class: "card" }, h("h3", {}, "Strongest features"), ...features(task, detail)),
    ...[modalities.weights(task)].filter(Boolean).map((one) => h("section", { class: "card" }, one)));
}

function behind(detail) {
  place("behind").replaceChildren(
    h("details", { class: "card" }, h("summary", {}, "Export"), exports(detail)),
    h("details", { class: "card" }, h("summary", {}, "Where this comes from"),
      h("table", { class: "provenance" }, h("tbody", {}, detail.provenance.map(([name, value]) => h("tr", {}, h("th", {}, name), h("td", {}, value))))),
      h("p", { class: "note" }, "Research use only. Not a medical device; no decision about a patient may rest on it.")));
}

function keys(detail) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    const next = event.key === "j" || (event.altKey && event.key === "ArrowDown");
    const back = event.key === "k" || (event.altKey && event.key === "ArrowUp");
    const { before, after } = neighbours(detail);
    const patient = next ? after : back ? before : null;
    if (patient === null) return;
    event.preventDefault();
    location.assign(address(patient));
  });
}

// the pictures fill what the head and banner leave of the window
function fit() {
  const room = () => document.documentElement.style.setProperty("--above", `${Math.ceil(place("patient").getBoundingClientRect().top + scrollY)}px`);
  new ResizeObserver(room).observe(place("who"));
  new ResizeObserver(room).observe(place("banner"));
  room();
}

async function start() {
  place("evidence").replaceChildren(h("div", { id: "rests" }), h("div", { id: "notes" }), h("div", { id: "behind" }));
  let detail, mark;
  const draw = () => { head(detail); banner(detail); mark = tasks.mount(place("tasks"), detail, state); evidence(detail); notes.mount(place("notes"), detail, state); behind(detail); };
  try {
    detail = await get("/api/patient", state.model ? { id, model: state.model } : { id });
  } catch (fault) {
    place("tasks").replaceChildren(h("p", { class: "warn", role: "alert" }, fault.message));
    return;
  }
  if (!detail.tasks.some((task) => task.name === state.task)) state.set({ task: detail.tasks[0]?.name });
  draw();
  fit();
  pictures(detail);
  keys(detail);
  way();
  printing();
  state.on("task", () => { mark(); evidence(detail); });
  state.on("model", async (model) => { detail = await get("/api/patient", { id, model }); draw(); });
  place("patient").removeAttribute("aria-busy");
}

await start();
