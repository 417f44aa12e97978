// The pictures of the comparison: on every one both sides share one scale, A blue and full, B orange and striped.

import { h } from "./api.js";
import { smooth } from "./survival.js";
import { MANY, density } from "./tasks.js";
import { decimal, ends, modality, percent, standing } from "./words.js";

const YEAR = 365.25;
const COLOURS = ["#00689d", "#c25200"]; // A, B: apart also for the colour-blind
const DASHES = ["", "7 3"];
const SIDES = ["a", "b"];

/** Which side is which colour. */
export function legend(names) {
  return h("p", { class: "legend" }, names.map((name, k) => h("span", {}, h("span", { class: `key ${SIDES[k]}` }), h("strong", {}, "AB"[k]), name === "AB"[k] ? "" : ` ${name}`)));
}

/** A bar of each side for every class. */
export function probabilities(both) {
  const classes = both.find(Boolean).classes;
  const share = (task, name) => task?.probabilities.find((one) => one.class === name)?.p ?? null;
  return h("div", { class: "bars", role: "group", "aria-label": "probabilities" }, classes.map((name) => [
    h("span", { class: "label" }, name),
    h("span", { class: "pair" }, both.map((task, k) => bar(share(task, name), k, task?.said === name))),
  ]).flat(), h("p", { class: "note" }, calibrated(both)));
}

function calibrated(both) {
  const well = both.map((task) => task !== null && task.n_calibration !== null);
  if (well[0] === well[1]) return well[0] ? "calibrated probability" : "not calibrated";
  return `calibrated for ${well[0] ? "A" : "B"} alone`;
}

const bar = (p, k, strong) => h("span", { class: strong ? "row strong" : "row" },
  h("span", { class: "track" }, h("span", { class: `fill ${SIDES[k]}`, style: `width:${100 * (p ?? 0)}%` })),
  h("span", { class: "number" }, percent(p)));

/** Both survival curves in one pair of axes. */
export function curves(both) {
  const known = both.filter((task) => task?.curve);
  if (!known.length) return h("p", { class: "soft" }, "Neither model predicts a survival curve.");
  const W = 460, L = 74, R = 448, T = 8, B = 150;
  const until = Math.max(1, Math.ceil(Math.max(...known.map((task) => task.curve.days.at(-1))) / YEAR - 0.01)) * YEAR;
  const x = (day) => L + (R - L) * Math.min(1, day / until), y = (s) => B - (B - T) * s;
  const points = (path) => path.map(([day, s]) => `${x(day).toFixed(1)},${y(s).toFixed(1)}`).join(" ");
  const every = until / YEAR > 8 ? 2 : 1;
  const axes = [0, 0.25, 0.5, 0.75, 1].map((s) => [
    h("line", { x1: L, x2: R, y1: y(s), y2: y(s), stroke: s ? "#e4e7ea" : "#8a929a" }),
    h("text", { x: L - 5, y: y(s) + 3.5, "text-anchor": "end" }, `${100 * s} %`)]).flat();
  const years = Array.from({ length: Math.floor(until / YEAR / every) + 1 }, (_, k) => k * every)
    .map((year) => h("text", { x: x(year * YEAR), y: B + 14, "text-anchor": "middle" }, String(year)));
  const value = (task, day) => task.curve.survival[task.curve.days.indexOf(day)] ?? null;
  // the letters stand where the curves are farthest apart
  const apart = (day) => (both.every((task) => task?.curve && value(task, day) !== null) ? Math.abs(value(both[0], day) - value(both[1], day)) : 0);
  const drawn = both.map((task, k) => {
    if (!task?.curve) return [];
    const { days, survival, lower, upper } = task.curve;
    const at = days.reduce((best, day) => (apart(day) > apart(best) ? day : best), days[Math.floor((days.length - 1) / 2)]);
    const here = value(task, at), there = both[1 - k]?.curve ? value(both[1 - k], at) : null;
    return [
      lower && h("polygon", { points: points([...smooth(days, upper), ...smooth(days, lower).reverse()]), fill: COLOURS[k], "fill-opacity": 0.14 }),
      h("polyline", { points: points(smooth(days, survival)), fill: "none", stroke: COLOURS[k], "stroke-width": 2.2, "stroke-dasharray": DASHES[k], class: `curve ${SIDES[k]}` }),
      h("text", { x: x(at), y: y(here) + (there !== null && (here < there || (here === there && k)) ? 14 : -6), fill: COLOURS[k], "font-weight": 700, "text-anchor": "middle" }, "AB"[k]),
    ];
  }).flat();
  const told = both.map((task, k) => task?.curve && `${"AB"[k]}: ${percent(task.curve.survival.at(-1))} at ${(task.curve.days.at(-1) / YEAR).toFixed(1)} years`).filter(Boolean);
  return h("figure", { class: "curves" },
    h("svg", { viewBox: `0 0 ${W} ${B + 32}`, role: "img", "aria-label": `Predicted survival curves. ${told.join(", ")}` },
      axes, years, h("text", { x: (L + R) / 2, y: B + 28, "text-anchor": "middle" }, "years"),
      h("text", { x: L - 5, y: y(0.875) + 3.5, "text-anchor": "end" }, "event-free"), drawn),
    h("figcaption", { class: "note" }, `Predicted probability of no event; A full, B dashed${known.some((task) => task.curve.lower) ? ", bands: ± 2 SD of the members" : ""}.`));
}

/** Where each side stands among its reference patients: one strip a side, one below the other. */
export function strips(both, names) {
  const known = both.map((task) => task?.position ?? null);
  if (!known.some(Boolean)) return h("p", { class: "soft" }, "no reference patients to compare with");
  const task = both.find((one) => one?.position);
  const ordered = task.kind === "ordinal" ? [0, task.classes.length - 1] : task.kind === "binary" || task.kind === "multiclass" ? [0, 1] : null;
  return h("div", { class: "strips" }, known.map((place, k) => {
    if (!place) return h("p", { class: "soft" }, `${names[k]}: no reference patients`);
    // risks of two models or folds share no scale, so each strip of them has its own
    const [low, high] = ordered ?? [Math.min(place.values[0], place.own), Math.max(place.values.at(-1), place.own)];
    const x = (value) => 6 + 228 * ((value - low) / (high - low || 1));
    const sentence = `${"AB"[k]}: ${standing(both[k], place.own)}`;
    return h("div", { title: `${place.words}${place.values.length > MANY ? "" : ": each grey line is one"}` },
      h("svg", { viewBox: "0 0 240 26", role: "img", "aria-label": sentence },
        h("line", { x1: 6, x2: 234, y1: 21, y2: 21, stroke: "#8a929a" }),
        place.values.length > MANY ? density(place.values.map(x)) : place.values.map((value) => h("line", { x1: x(value), x2: x(value), y1: 12, y2: 21, stroke: "#5d666f", "stroke-opacity": place.values.length > 60 ? 0.3 : 0.65, "stroke-width": 1.5 })),
        h("line", { x1: x(place.own), x2: x(place.own), y1: 9, y2: 24, stroke: COLOURS[k], "stroke-width": 2.5 }),
        h("polygon", { points: `${x(place.own) - 5},1 ${x(place.own) + 5},1 ${x(place.own)},10`, fill: COLOURS[k] })),
      h("p", { class: "note" }, sentence));
  }), h("div", { class: "ends" }, (ordered && task.kind === "ordinal" ? task.classes : task.kind === "survival" ? ["lower risk", "higher risk"] : task.kind === "regression" ? ["lower", "higher"] : ["0 %", "100 %"]).map((mark) => h("span", {}, mark))));
}

/** What each modality adds on both sides, on one scale. */
export function contributions(both) {
  const known = both.map((task) => new Map((task?.contributions ?? []).map((one) => [one.modality, one])));
  const names = [...new Set(known.flatMap((one) => [...one.keys()]))];
  if (!names.length) return null;
  const most = Math.max(1e-9, ...known.flatMap((one) => [...one.values()]).map((one) => Math.abs(one.value ?? 0)));
  const task = both.find((one) => one?.contributions.length);
  const [low, high] = ends(task);
  const between = () => h("span", { class: "between" }, h("span", {}, `← ${low}`), h("span", {}, `${high} →`));
  const half = (one, k) => {
    if (!one) return [h("span", { class: "soft" }, "not told"), h("span", {})];
    if (!one.present) return [h("span", { class: "hatched" }, "not available"), h("span", {})];
    const share = 50 * Math.min(1, Math.abs(one.value ?? 0) / most);
    return [h("span", { class: "diverging" }, h("span", { class: `fill ${SIDES[k]}`, style: one.value < 0 ? `right:50%;width:${share}%` : `left:50%;width:${share}%` })),
      h("span", { class: "number" }, one.value === null ? "" : decimal(one.value, true))];
  };
  return h("details", { class: "adds", open: true }, h("summary", {}, "What each modality adds"),
    h("div", { class: "modalities" },
      h("span", {}), between(), h("span", { class: "number" }, "A"), between(), h("span", { class: "number" }, "B"),
      names.map((name) => [h("span", { class: "label" }, modality(name)), ...half(known[0].get(name), 0), ...half(known[1].get(name), 1)]).flat()),
    h("p", { class: "note" }, `Shapley values of the ${task.score_words}, both on one scale. They tell what the model uses, not what causes the disease.`));
}
