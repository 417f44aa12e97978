// ROC curves, or Kaplan-Meier curves by risk group, of all patients or of each subgroup.

import { h } from "./api.js";
import { COLOURS, DASHES, band, frame, key, line, stairs } from "./plot.js";

const YEAR = 365.25, TENTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];
const percent = (share) => `${Math.round(100 * share)} %`;

/** The figure of the task's kind; null for numbers, which have none. */
export function curves(data, at) {
  if (data.task.kind === "survival") return survival(data);
  return data.targets.length ? roc(data, data.curves[at]) : null;
}

/** A card: heading, figure or why there is none, key and words. */
export const card = (id, heading, figure, words, ...more) => h("figure", { class: "card", id }, h("h2", {}, heading), figure, more, h("figcaption", { class: "soft" }, words));

/** Why subgroups have no curve. */
export const reasons = (levels) => {
  const lacking = levels.filter((level) => level.reason);
  return lacking.length ? h("ul", { class: "lacking" }, lacking.map((level) => h("li", {}, `${level.name}: ${level.reason}`))) : null;
};

function roc(data, curve) {
  const parted = Boolean(data.by), drawn = curve.levels.filter((level) => level.mean);
  const on = frame({ width: 430, height: 330, title: `ROC curves: ${curve.target}`,
    x: { from: 0, to: 1, ticks: TENTHS, label: "1 − specificity (share of the others called)", say: percent }, y: { from: 0, to: 1, ticks: TENTHS, label: "sensitivity", say: percent } });
  on.add(line(on, [0, 1], [0, 1], { colour: "#8a929a", width: 1, dash: "2 3" }));
  curve.levels.forEach((level, k) => {
    if (!level.mean) return;
    if (!parted) on.add(level.folds.map((own) => line(on, curve.fpr, own, { colour: COLOURS[0], width: 0.8, opacity: 0.5 })));
    const mean = line(on, curve.fpr, level.mean, { colour: COLOURS[k % 6], dash: parted ? DASHES[k % 6] : "", width: 2.2 });
    mean.classList.add("curve");
    mean.append(h("title", {}, `${level.name}: ${level.n} patients, ${level.events} ${curve.target}`));
    on.add(mean);
  });
  const words = parted ? `Each line is the mean of the curves within the folds, weighted by patients; beside it how many are ${curve.target}.` : `Thin: within each fold; bold: their mean, weighted by patients. Scores of different folds are never mixed. Dots: no better than chance.`;
  return card("curves", `Telling patients apart: ${curve.target}`, drawn.length ? on.svg : null, words,
    parted ? key(drawn.map((level) => { const k = curve.levels.indexOf(level); return { words: `${level.name}: ${level.events} of ${level.n}`, colour: COLOURS[k % 6], dash: DASHES[k % 6] }; })) : null,
    reasons(curve.levels));
}

const cut = (name) => (name.length > 12 ? `${name.slice(0, 11)}…` : name);

function survival(data) {
  const parted = Boolean(data.by), entries = [];
  data.curves.forEach((level, k) => level.groups.forEach((group) => {
    const higher = group.name.startsWith("higher");
    entries.push({ group, words: `${parted ? `${level.name}, ` : ""}${group.name}: ${group.n}, ${group.events} events`, short: `${parted ? `${cut(level.name)} ` : ""}${higher ? "higher" : "lower"}`,
      colour: COLOURS[parted ? k % 6 : Number(higher)], dash: higher ? "7 3" : "" });
  }));
  const heading = `Survival by risk group${data.task.endpoint ? `: ${data.task.endpoint}` : ""}`;
  const words = "Kaplan-Meier curves of test patients above and below the median risk of their own fold’s training patients (cut before looking). " + (data.task.causes.length > 1 ? `Event: ${data.task.causes[0]}; patients with another cause count as censored then. ` : "");
  if (!entries.length) return card("curves", heading, null, words, reasons(data.curves));
  const last = Math.max(...entries.map(({ group }) => group.days.at(-1))), at = entries[0].group.at_risk.map((one) => one.days);
  const left = Math.max(66, 22 + 6.8 * Math.max(...entries.map((one) => one.short.length))); // room for their names beside those at risk
  const on = frame({ width: 430, height: 330, left, below: 18 + 15 * entries.length, title: heading,
    x: { from: 0, to: Math.max(last, 1), ticks: at.filter((day) => day <= last), label: "years", say: (day) => `${Math.round(day / YEAR)}` }, y: { from: 0, to: 1, ticks: TENTHS, label: "", say: percent } });
  for (const { group, colour, dash, short, words: told } of entries) {
    const [xs, ys] = stairs(group.days, group.survival);
    if (!parted) on.add(band(on, xs, stairs(group.days, group.lower)[1], stairs(group.days, group.upper)[1], { colour }));
    const curve = line(on, xs, ys, { colour, dash, width: 2 });
    curve.classList.add("curve");
    curve.append(h("title", {}, told));
    on.add(curve);
    // at its end the name: colours alone do not tell subgroups apart
    if (parted) on.add(h("text", { x: on.x(xs.at(-1)) - 3, y: on.y(ys.at(-1)) - 4, "text-anchor": "end", fill: colour }, short));
  }
  on.add(h("text", { x: 2, y: on.height + 2, fill: "#565e66" }, "at risk"));
  entries.forEach(({ group, short, colour }, k) => {
    const y = on.height + 17 + 15 * k;
    on.add(h("text", { x: 2, y, fill: colour }, short, h("title", {}, group.name)));
    on.add(group.at_risk.filter((one) => one.days <= last).map((one) => h("text", { x: on.x(one.days), y, "text-anchor": "middle", fill: colour }, `${one.n}`)));
  });
  return card("curves", heading, on.svg, words + (parted ? "Groups of few patients say little." : "Bands: 95 %."), key(entries), reasons(data.curves));
}
