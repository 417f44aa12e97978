// Calibration, abstention, and the patients themselves: what was predicted against what came.

import { h } from "./api.js";
import { card, reasons } from "./discrimination.js";
import { COLOURS, band, frame, key, line, points, ticks, whisker } from "./plot.js";

const YEAR = 365.25, TENTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];
const percent = (share) => `${Math.round(100 * share)} %`;

/** Observed against predicted: groups of patients with their intervals over the smooth curve of all. */
export function calibration(data, at) {
  const told = data.calibration[at];
  if (!told) return null;
  const parted = Boolean(data.by), all = [...told.levels.flatMap((level) => level.groups.flatMap((g) => [g.predicted, g.observed])), ...(told.curve?.predicted ?? [])];
  const top = Math.min(1, Math.ceil(10 * Math.max(0.2, ...all.filter((v) => v !== null)) + 0.2) / 10);
  const marks = TENTHS.map((share) => share * top), axis = { from: 0, to: top, ticks: marks, say: percent };
  const on = frame({ width: 430, height: 330, title: `Calibration: ${told.target}`, x: { ...axis, label: `predicted probability: ${told.target}` }, y: { ...axis, label: data.task.kind === "survival" ? "observed risk" : "observed share" } });
  on.add(line(on, [0, top], [0, top], { colour: "#8a929a", width: 1, dash: "2 3" }));
  if (told.curve) {
    const { predicted, observed, lo, hi } = told.curve, inside = (values) => values.map((v) => (v === null ? null : Math.max(0, Math.min(top, v))));
    on.add(band(on, predicted, inside(lo), inside(hi), { colour: parted ? "#565e66" : COLOURS[0] }), line(on, predicted, inside(observed), { colour: parted ? "#565e66" : COLOURS[0] }));
  }
  told.levels.forEach((level, k) => on.add(level.groups.filter((group) => group.observed !== null).map((group) => whisker(on, group.predicted, Math.min(top, group.observed),
    clamp(group.lo, top), clamp(group.hi, top), { ...SIGNS[parted ? k % 6 : 0], colour: parted ? COLOURS[k % 6] : "#22262b", title: `${level.name}: ${group.n} patients predicted ${percent(group.predicted)}, observed ${percent(group.observed)}` }))));
  const smooth = told.curve ? ` Line: smooth curve${parted ? " of all patients" : ""} with its 95 % band.` : "";
  const any = told.curve || told.levels.some((level) => level.groups.length);
  return card("calibration", "Do probabilities mean what they say?", any ? on.svg : null, `Points: groups of patients with like predictions, 95 % intervals.${smooth} On the dotted diagonal they do.`,
    parted ? key(told.levels.map((level, k) => ({ ...SIGNS[k % 6], words: level.name, colour: COLOURS[k % 6] }))) : null, reasons(told.levels));
}

const SIGNS = [false, true].flatMap((hollow) => ["circle", "square", "triangle"].map((shape) => ({ shape, hollow })));
const clamp = (value, top) => (value === null ? null : Math.min(top, value));

/** The metric of the patients who are left when the least certain go; from the evaluation. */
export function abstention(data) {
  const [first, ...more] = data.abstention.filter((one) => one.value.some((v) => v !== null));
  if (!first) return null;
  const numbers = [first, ...more].flatMap((one) => [...one.value, ...(one === first ? [...one.lo, ...one.hi] : [])]).filter((v) => v !== null);
  const low = Math.floor(10 * Math.min(...numbers)) / 10, high = Math.min(1, Math.ceil(10 * Math.max(...numbers)) / 10), least = Math.min(...first.kept.filter((_, k) => first.value[k] !== null));
  const on = frame({ width: 430, height: 330, title: `${first.words} of the patients who are left when the least certain go`,
    x: { from: 1, to: least, ticks: [1, 0.8, 0.6, 0.4, 0.2].filter((v) => v >= least), label: "share of patients who keep their prediction", say: percent },
    y: { from: low, to: high, ticks: ticks(low, high, 5), label: first.words, say: (v) => v.toFixed(2) } });
  on.add(band(on, first.kept, first.lo, first.hi, { colour: "#565e66" }));
  [first, ...more].forEach((one, k) => on.add(line(on, one.kept, one.value, { colour: COLOURS[k], dash: k ? "7 3" : "", width: 2 })));
  return card("abstention", "If the model kept silent when unsure", on.svg, `Grey: where ${first.words} lies when patients go at random (95 %). A line above the grey: the model knows what it does not know. All patients, as the evaluation has it.`,
    key([first, ...more].map((one, k) => ({ words: one.words, colour: COLOURS[k], dash: k ? "7 3" : "" }))));
}

/** Every patient as a point: predicted against what came. Shape says whether to rely on it. */
export function patients(data, at) {
  const { kind } = data.task, list = data.points.filter((point) => value(data, point, at) !== null);
  if (!list.length) return null;
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" }), holder = h("div", { class: "holder" });
  const on = kind === "survival" ? overTime(data, list, at) : kind === "regression" ? numbers(data, list) : strip(data, at);
  const rank = new Map(data.levels.map((level, k) => [level.name, k]));
  const spread = kind === "survival" || kind === "regression" ? list.map((point) => [on.x(kind === "survival" ? point.label / YEAR : point.label), on.y(value(data, point, at))]) : swarm(data, list, at, on);
  const marks = list.map((point, k) => ({ x: spread[k][0], y: spread[k][1], label: words(data, point, at), point,
    shape: point.abstains ? "triangle" : point.reasons.length ? "square" : "circle", hollow: kind === "survival" && !point.event,
    colour: data.by ? COLOURS[rank.get(point.level) % 6] ?? "#8a929a" : COLOURS[0],
    open: point.opens ? () => { location.href = `/patient?${new URLSearchParams({ id: point.id, task: data.task.name })}`; } : null }));
  const told = (mark) => {
    tip.hidden = !mark;
    if (!mark) return;
    tip.replaceChildren(h("strong", {}, mark.point.id), ...lines(data, mark.point, at).map((text) => h("div", {}, text)), mark.point.opens ? h("div", { class: "soft" }, "click or Enter: open") : "");
    tip.style.top = `${(100 * mark.y) / on.height}%`;
    tip.style[mark.x > on.width / 2 ? "right" : "left"] = `${100 * (mark.x > on.width / 2 ? 1 - (mark.x - 10) / on.width : (mark.x + 10) / on.width)}%`;
    tip.style[mark.x > on.width / 2 ? "left" : "right"] = "auto";
  };
  on.add(points(marks, told));
  holder.append(on.svg, tip);
  const shapes = [["circle", false, kind === "survival" ? "event" : "nothing speaks against it"], ...(kind === "survival" ? [["circle", true, "no event so far"]] : []), ["square", false, "reasons not to rely on it"], ["triangle", false, "the model abstains"]];
  return card("patients", "Every patient", holder, `${list.length} test patients. ${list.some((point) => point.opens) ? "Click a point, or walk with Tab and the arrow keys and press Enter, to open the patient." : "None of them is on this run’s worklist, so none can be opened."}`,
    key(shapes.map(([shape, hollow, text]) => ({ shape, hollow, words: text, colour: "#22262b" }))));
}

const value = (data, point, at) => (data.task.kind === "regression" || !data.targets.length ? point.predicted : point.said[at]);

const lines = (data, point, at) => [
  data.targets.length ? `predicted ${data.targets[at]}: ${percent(value(data, point, at))}` : `predicted: ${value(data, point, at).toPrecision(3)}`,
  `known: ${point.known}`, ...(point.level && data.by ? [`${data.by}: ${point.level}`] : []), ...(point.abstains ? ["the model abstains"] : []), ...point.reasons.slice(0, 4)];

const words = (data, point, at) => [point.id, ...lines(data, point, at)].join(", ");

function strip(data, at) {
  const classes = data.task.classes, rows = classes.map((_, k) => k);
  return frame({ width: 430, height: 330, left: 96, title: `Predicted probability of ${data.targets[at]} by known outcome`,
    x: { from: -0.03, to: 1.03, ticks: TENTHS, label: `predicted probability: ${data.targets[at]}`, say: percent },
    y: { from: -0.5, to: classes.length - 0.5, ticks: rows, label: "", say: (k) => (classes[k].length > 14 ? `${classes[k].slice(0, 13)}…` : classes[k]) } });
}

/** Places in the row of the known class, moved up or down until they do not cover each other. */
function swarm(data, list, at, on) {
  const half = Math.abs(on.y(0) - on.y(1)) / 2 - 6, taken = data.task.classes.map(() => []), order = list.map((_, k) => k).sort((a, b) => list[a].said[at] - list[b].said[at]);
  const out = new Array(list.length);
  for (const k of order) {
    const x = on.x(list[k].said[at]), row = taken[list[k].label], middle = on.y(list[k].label);
    const offsets = Array.from({ length: Math.max(1, 2 * Math.floor(half / 5)) }, (_, j) => (j % 2 ? -1 : 1) * 5 * Math.ceil(j / 2));
    const dy = offsets.find((o) => !row.some(([ox, oy]) => Math.hypot(ox - x, oy - o) < 9.5)) ?? offsets[row.length % offsets.length];
    row.push([x, dy]);
    out[k] = [x, middle + dy];
  }
  return out;
}

function overTime(data, list, at) {
  const last = Math.max(...list.map((point) => point.label)) / YEAR, named = data.targets[at];
  const risks = list.map((point) => value(data, point, at)), low = named ? 0 : Math.min(...risks), high = named ? 1 : Math.max(...risks);
  return frame({ width: 430, height: 330, title: "Predicted risk against time under observation", x: { from: 0, to: last, ticks: ticks(0, last, 6), label: "years under observation" },
    y: { from: low, to: high, ticks: named ? TENTHS : ticks(low, high), label: named ? `predicted: ${named}` : "risk (of different folds: no one scale)", say: named ? percent : (v) => v.toPrecision(2) } });
}

function numbers(data, list) {
  const all = list.flatMap((point) => [point.label, point.predicted]), from = Math.min(...all), to = Math.max(...all), axis = { from, to, ticks: ticks(from, to) };
  const on = frame({ width: 430, height: 330, title: "Predicted against known", x: { ...axis, label: `known ${data.task.unit}` }, y: { ...axis, label: `predicted ${data.task.unit}` } });
  on.add(line(on, [from, to], [from, to], { colour: "#8a929a", width: 1, dash: "2 3" }));
  return on;
}
