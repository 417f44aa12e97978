// The cohort page: figures of one task, parted by a covariate, and every patient as a point that opens the patient’s page.

import { get, h } from "./api.js";
import { curves } from "./discrimination.js";
import { abstention, calibration, patients } from "./cohort_figures.js";
import { COLOURS, key } from "./plot.js";
import { state } from "./state.js";

const place = document.getElementById("cohort");
const query = new URLSearchParams(location.search);
const chosen = { by: query.get("by") ?? "", target: query.get("target") ?? "" };
let asked = 0;

/** Fetches the figures of the chosen task and covariate and shows them; later wishes overtake earlier ones. */
async function show() {
  const mine = ++asked;
  place.setAttribute("aria-busy", "true");
  let data;
  try {
    data = await get("/api/cohort", { task: state.task ?? "", by: chosen.by });
  } catch (fault) {
    if (mine === asked && (chosen.by || state.task)) return again();
    place.replaceChildren(h("p", { class: "warn", role: "alert" }, fault.message));
    return;
  }
  if (mine !== asked) return;
  const focused = document.activeElement?.id;
  draw(data);
  place.removeAttribute("aria-busy");
  if (focused) document.getElementById(focused)?.focus();
}

/** An old address may ask for what this run has not: then the first task of all patients is shown. */
function again() {
  chosen.by = "";
  state.set({ task: undefined });
  kept();
  return show();
}

function kept() {
  const now = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(chosen)) value ? now.set(name, value) : now.delete(name);
  history.replaceState(null, "", `${location.pathname}${now.size ? `?${now}` : ""}`);
}

function draw(data) {
  const at = Math.max(0, data.targets.indexOf(chosen.target));
  const parts = [toolbar(data, at), who(data), metrics(data), legend(data),
    h("div", { class: "figures" }, curves(data, at), patients(data, at), calibration(data, at), abstention(data), table(data))];
  place.replaceChildren(...parts.filter(Boolean));
}

function toolbar(data, at) {
  const tabs = data.tasks.map((task) => h("button", { type: "button", id: `task-${data.tasks.indexOf(task)}`, "aria-pressed": String(task === data.task.name),
    click: () => { state.set({ task }); chosen.target = ""; kept(); show(); } }, task));
  const choice = (id, words, options, value, change) => h("label", { for: id }, words, " ",
    h("select", { id, change: (event) => change(event.target.value) }, options.map(([v, text]) => h("option", { value: v, selected: v === value }, text))));
  return h("div", { class: "tools" },
    h("div", { class: "tabs", role: "group", "aria-label": "task" }, tabs),
    data.bys.length ? choice("by", "part by", [["", "nothing: all patients"], ...data.bys.map((by) => [by, by])], data.by, (by) => { chosen.by = by; kept(); show(); }) : null,
    data.targets.length > 1 ? choice("target", "probability of", data.targets.map((name) => [name, name]), data.targets[at], (name) => { chosen.target = name; kept(); draw(data); document.getElementById("target").focus(); }) : null,
    data.report ? h("span", { class: "report" }, h("a", { href: "/report.html", target: "_blank", rel: "noopener" }, "open the report"), h("a", { href: "/report.html?download=true", download: "report.html" }, "download it")) : null);
}

function who(data) {
  const events = data.events === null ? "" : data.task.kind === "survival" ? `, ${data.events} with the event` : `, ${data.events} of them ${data.task.classes[1]}`;
  const unknown = data.unknown ? ` ${data.unknown} more have no known outcome and are in no figure.` : "";
  return h("p", { class: "soft" }, `${data.n} test patients of training run ${data.training}${events}; each predicted by a fold that was not trained on them (${data.folds} ${data.folds === 1 ? "fold" : "folds"}).${unknown}`);
}

function metrics(data) {
  if (data.other) return h("p", { class: "note" }, data.other);
  if (!data.evaluation) {
    return h("p", { class: "note" }, "No evaluation of this training run was found, so there are no intervals, smooth calibration curves or abstention curves. Make one with ",
      h("code", {}, `mtl evaluate ckpt=runs/train/${data.training}`), " and start mtl serve again.");
  }
  return h("ul", { class: "metrics" }, data.metrics.map((metric, k) => h("li", { class: k ? "" : "first" },
    h("span", { class: "what" }, metric.words), h("span", { class: "value" }, said(metric)),
    h("span", { class: "soft" }, metric.value === null ? metric.reason : `${interval(metric)}${k ? "" : `, ${metric.n} patients${metric.events === null ? "" : `, ${metric.events} events`}`}`))));
}

const digits = (number) => number.toFixed(2).replace("-", "−");
const said = (metric) => (metric.value === null ? "–" : digits(metric.value));
const interval = (metric) => (metric.lo === null || metric.hi === null ? "no interval" : `95 % interval ${digits(metric.lo)} to ${digits(metric.hi)}`);

function legend(data) {
  if (!data.by) return null;
  return h("div", { class: "levels" }, h("strong", {}, data.by), data.levels.length
    ? key(data.levels.map((level, k) => ({ words: `${level.name} (${level.n})`, colour: COLOURS[k % COLOURS.length], width: 5 })))
    : h("span", { class: "soft" }, "parts the patients of this task into no groups"));
}

function table(data) {
  if (!data.by || !data.levels.length) return null;
  const events = data.levels.some((level) => level.events !== null);
  const named = data.task.kind === "survival" ? "events" : data.task.classes[1];
  return h("section", { class: "card" }, h("h2", {}, `By ${data.by}`),
    h("table", {}, h("thead", {}, h("tr", {}, [data.by, "patients", ...(events ? [named] : []), data.task.metric, "95 % interval"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, data.levels.map(({ name, n, events: many, metric }) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, `${n}`), events ? h("td", {}, `${many}`) : null,
        h("td", {}, said(metric)), h("td", { class: "wide" }, metric.value === null ? metric.reason : interval(metric).replace("95 % interval ", "")))))),
    h("p", { class: "soft" }, "Patients are compared within their fold only. Few patients make wide intervals: a difference between subgroups is a question, not an answer."));
}

await show();
