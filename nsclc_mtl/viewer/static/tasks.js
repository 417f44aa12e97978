// One card a task: what is said, how probable it is, which classes remain, where the patient stands, and why not to rely on it.

import { h } from "./api.js";
import { figure } from "./survival.js";
import { days, listed, percent, short, spoken, standing } from "./words.js";

/** How many reference patients still stand as a line each. */
export const MANY = 150;

/** The cards into `element`; choosing one sets the task of every map on the page. */
export function mount(element, detail, state) {
  const cards = detail.tasks.map((task) => [task.name, card(task, detail, state)]);
  element.replaceChildren(...(cards.length ? cards.map(([, one]) => one) : [h("p", {}, "Nothing is predicted for this patient.")]));
  const mark = () => cards.forEach(([name, one]) => {
    const chosen = name === state.task;
    one.classList.toggle("chosen", chosen);
    one.querySelector(".name").setAttribute("aria-pressed", String(chosen));
  });
  mark();
  return mark;
}

function card(task, detail, state) {
  const greyed = detail.abstains || task.abstains;
  const reasons = task.reasons.filter((reason) => !reason.endsWith("the set does not decide")); // the set says so itself
  const choose = () => {
    state.set({ task: task.name });
    requestAnimationFrame(() => one.scrollIntoView({ block: "nearest" })); // the survival card grows when it is chosen
  };
  const one = h("article", { class: greyed ? "task greyed" : "task", "data-task": task.name, "data-kind": task.kind, click: choose },
    h("header", {},
      h("span", { class: "first" },
        h("h2", {}, h("button", { class: "name", type: "button", "aria-pressed": "false", title: "show this task on the maps and below" }, task.name)),
        h("strong", { class: "said" }, said(task)),
        h("span", { class: "sure", title: task.spread === null ? "probability" : "probability ± standard deviation of the members, percentage points" }, sureness(task))),
      outcome(task)),
    greyed && h("p", { class: "abstains" }, abstention(task, detail)),
    h("div", { class: "two" }, task.kind === "survival" ? years(task) : probabilities(task), position(task)),
    task.of_model.length > 0 && h("p", { class: "note of-model" }, task.of_model.join(" ")),
    h("p", { class: "set", title: level(task) }, remaining(task)),
    reasons.length > 0 && h("ul", { class: "reasons" }, reasons.map((reason) => h("li", {}, spoken(plain(reason, task), [...detail.present, ...detail.missing])))),
    task.kind === "survival" && figure(task));
  return one;
}

function said(task) {
  if (task.kind === "survival") {
    const until = task.horizon_days ? ` ${task.said === "event" ? "before" : "beyond"} ${(task.horizon_days / 365.25).toFixed(1)} years` : "";
    return task.said ? `${task.said}${until}` : "risk only";
  }
  if (task.kind === "regression") return task.value === null ? "–" : `${short(task.value)} ${task.unit}`;
  return task.said ?? "–";
}

function sureness(task) {
  if (task.confidence === null) return "";
  const apart = task.spread === null ? "" : ` ± ${Math.round(task.spread * 100)}`;
  return `${percent(task.confidence)}${apart}`;
}

// A reader judges first and looks at the truth afterwards.
function outcome(task) {
  if (task.known === null) return h("span", { class: "outcome soft" }, "outcome unknown");
  const button = h("button", { class: "outcome", type: "button", click: (event) => {
    event.stopPropagation();
    const told = h("strong", { class: "outcome shown", tabindex: "-1" }, `outcome: ${task.known}`);
    button.replaceWith(told);
    told.focus(); // whoever came by keyboard goes on from here
  } }, "show outcome");
  return button;
}

function abstention(task, detail) {
  if (detail.abstains) return "Not to be relied on for this patient, for the reasons above.";
  if (task.set && task.set.length === 0) return "The model abstains: no class is likely enough.";
  if (task.set && task.set.length > 1) return `The model abstains: it cannot tell ${listed(task.set)} apart.`;
  return "The model abstains: its members disagree.";
}

// "grade: the members disagree" stands on the card of the grade already
const plain = (reason, task) => (reason.startsWith(`${task.name}: `) ? reason.slice(task.name.length + 2) : reason);

function bar(label, p, low, high, strong) {
  return h("div", { class: strong ? "bar-row strong" : "bar-row" },
    h("span", { class: "label" }, label),
    h("span", { class: "track" },
      h("span", { class: "fill", style: `width:${100 * (p ?? 0)}%` }),
      low !== null && low !== undefined && h("span", { class: "whisker", style: `left:${100 * low}%;width:${100 * (high - low)}%` })),
    h("span", { class: "number" }, percent(p)));
}

function probabilities(task) {
  if (task.kind === "regression") {
    const [low, high] = task.interval ?? [];
    if (low === undefined) return h("div", { class: "bars soft" }, "no interval: no patients were kept aside to calibrate one");
    return h("div", { class: "bars soft", title: level(task) }, `between ${short(low)} and ${short(high)} ${task.unit}${task.set_level === null ? "" : ` at ${Math.round(task.set_level * 100)} %`}`);
  }
  return h("div", { class: "bars" },
    task.probabilities.map((one) => bar(one.class, one.p, null, null, one.class === task.said)),
    !task.set && h("p", { class: "note", title: "No patients were kept aside for one (folds.calibration)" }, "no prediction set"));
}

function years(task) {
  if (!task.years.length) return h("div", { class: "bars soft" }, "a risk without a survival curve");
  return h("div", { class: "bars" },
    task.years.map((one) => bar(`${one.years} year${one.years > 1 ? "s" : ""}`, one.survival, one.lower, one.upper, false)),
    h("p", { class: "note" }, `event-free${task.endpoint ? ` (${task.endpoint})` : ""}${task.years[0].lower === null ? "" : ", ± 2 SD of members"}`));
}

/** A strip of the reference patients with this one marked, and the same in words. */
function position(task) {
  if (!task.position) return h("div", { class: "position soft" }, "no reference patients to compare with");
  const { values, own, words } = task.position;
  const classes = task.kind === "ordinal" ? task.classes : null;
  const scale = classes ? [0, classes.length - 1] : task.kind === "binary" || task.kind === "multiclass" ? [0, 1] : [Math.min(values[0], own), Math.max(values.at(-1), own)];
  const x = (value) => 6 + 228 * ((value - scale[0]) / (scale[1] - scale[0] || 1));
  const sentence = standing(task, own);
  const marks = classes ?? (task.kind === "survival" ? ["lower risk", "higher risk"] : task.kind === "regression" ? scale.map(short) : ["0 %", "100 %"]);
  return h("div", { class: "position", title: `${words}${values.length > MANY ? "" : ": each grey line is one"}` },
    h("svg", { viewBox: "0 0 240 26", role: "img", "aria-label": sentence },
      h("line", { x1: 6, x2: 234, y1: 21, y2: 21, stroke: "#8a929a" }),
      values.length > MANY ? density(values.map(x)) : values.map((value) => h("line", { x1: x(value), x2: x(value), y1: 12, y2: 21, stroke: "#5d666f", "stroke-opacity": values.length > 60 ? 0.3 : 0.65, "stroke-width": 1.5 })),
      h("line", { x1: x(own), x2: x(own), y1: 9, y2: 24, class: "own", "stroke-width": 2.5 }),
      h("polygon", { points: `${x(own) - 5},1 ${x(own) + 5},1 ${x(own)},10`, class: "own" })),
    h("div", { class: "ends" }, marks.map((mark) => h("span", {}, mark))),
    h("p", { class: "note" }, sentence));
}

/** Bars of the number of patients in each thirtieth of the axis, where a line each would run into one. */
export function density(at) {
  const bins = Array(30).fill(0);
  for (const one of at) bins[Math.min(29, Math.max(0, Math.floor((one - 6) / 7.6)))] += 1;
  const most = Math.max(...bins);
  return bins.map((count, k) => count > 0 && h("rect", { x: 6 + 7.6 * k, width: 7.3, y: 21 - 13 * (count / most), height: 13 * (count / most), fill: "#9aa3ab" })).filter(Boolean);
}

function remaining(task) {
  const at = task.set_level === null ? "" : `${Math.round(task.set_level * 100)} %`;
  if (task.kind === "survival") {
    const parts = [];
    if (task.group) parts.push(`${task.group.charAt(0).toUpperCase()}${task.group.slice(1).replace(" ", "-")} group`);
    if (task.lower_bound_days !== null) parts.push(`${at ? `at ${at} ` : ""}event-free for at least ${days(task.lower_bound_days)}`);
    return parts.length ? `${parts.join("; ")}.` : "";
  }
  if (task.kind === "regression" || !task.set) return "";
  const which = task.set.length === 1 ? `${task.set[0]} alone` : task.set.length ? listed(task.set, "or") : "empty, no class is likely enough";
  return `Prediction set${at ? ` at ${at}` : ""}: ${which}.`;
}

const level = (task) => (task.set_level === null ? null
  : `Holds the truth in ${task.sets ? "at least " : ""}${Math.round(task.set_level * 100)} of 100 patients${task.sets ? `, a vote of ${Math.round(task.sets)} folds` : ""}${task.n_calibration === null ? "" : `; from ${Math.round(task.n_calibration)} calibration patients`}.`);
