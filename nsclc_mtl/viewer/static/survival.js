// The survival curve of the patient over the Kaplan-Meier curves of the risk groups, with the number at risk.

import { h } from "./api.js";
import { days } from "./words.js";

const YEAR = 365.25;
const WIDTH = 480, LEFT = 92, RIGHT = 468, TOP = 8, BOTTOM = 158;
const COLOURS = ["#00689d", "#c25200"]; // lower, higher risk: apart also for the colour-blind
const DASHES = ["", "7 3"];

/** The figure with its legend; null where the run predicts no curve and knows no groups. */
export function figure(task) {
  const groups = task.groups ?? [];
  if (!task.curve && !groups.length) return null;
  const last = Math.max(...(task.curve?.days ?? [0]), task.horizon_days ?? 0, ...groups.map((group) => group.days.at(-1) ?? 0));
  const until = Math.min(Math.max(1, Math.ceil(last / YEAR - 0.01)), Math.max(5, Math.ceil((task.curve?.days.at(-1) ?? 0) / YEAR - 0.01))) * YEAR;
  const x = (day) => LEFT + (RIGHT - LEFT) * Math.min(1, day / until);
  const y = (share) => BOTTOM - (BOTTOM - TOP) * share;
  const height = BOTTOM + 34 + (groups.length ? 14 + 13 * groups.length : 0);
  return h("figure", { class: "survival" },
    h("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": described(task) },
      grid(until, x, y),
      groups.map((group, k) => [
        h("polygon", { points: band(group, until, x, y), fill: COLOURS[k % 2], "fill-opacity": 0.1 }),
        h("polyline", { points: points(steps(group.days, group.survival, until), x, y), fill: "none", stroke: COLOURS[k % 2], "stroke-width": 1.6, "stroke-dasharray": DASHES[k % 2] }),
      ]).flat(),
      own(task, x, y),
      marks(task, until, x),
      atRisk(groups, until, x)),
    legend(task, groups));
}

function described(task) {
  const told = task.years.map((one) => `${Math.round(100 * one.survival)} % at ${one.years} years`).join(", ");
  return `Survival curve of this patient (${told || "none"}) over Kaplan-Meier curves of the risk groups`;
}

function grid(until, x, y) {
  const lines = [0, 0.25, 0.5, 0.75, 1].map((share) => [
    h("line", { x1: LEFT, x2: RIGHT, y1: y(share), y2: y(share), stroke: share ? "#e4e7ea" : "#8a929a" }),
    h("text", { x: LEFT - 5, y: y(share) + 3.5, "text-anchor": "end" }, `${100 * share} %`)]);
  const every = until / YEAR > 8 ? 2 : 1;
  const ticks = Array.from({ length: Math.floor(until / YEAR / every) + 1 }, (_, k) => k * every).map((year) => [
    h("line", { x1: x(year * YEAR), x2: x(year * YEAR), y1: BOTTOM, y2: BOTTOM + 3, stroke: "#8a929a" }),
    h("text", { x: x(year * YEAR), y: BOTTOM + 14, "text-anchor": "middle" }, `${year}`)]);
  return [...lines, ...ticks, h("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 27, "text-anchor": "middle" }, "years"),
    h("text", { x: LEFT - 5, y: y(0.875) + 3.5, "text-anchor": "end" }, "event-free")].flat();
}

/** [[day, share]] of a step function from 1 at day 0 to its last step, within the axis. */
export function steps(at, share, until) {
  const path = [[0, 1]];
  let before = 1;
  at.forEach((day, k) => {
    if (day > until) return;
    path.push([day, before], [day, share[k]]);
    before = share[k];
  });
  return path;
}

/** [[day, share]] with a constant hazard between the predicted days, from 1 at day 0. */
export function smooth(at, share) {
  const grid = [0, ...at], hazard = [0, ...share.map((s) => -Math.log(Math.max(s, 1e-7)))];
  const path = [[0, 1]];
  for (let k = 1; k < grid.length; k += 1) {
    for (let part = 1; part <= 12; part += 1) {
      const here = part / 12;
      path.push([grid[k - 1] + here * (grid[k] - grid[k - 1]), Math.exp(-(hazard[k - 1] + here * (hazard[k] - hazard[k - 1])))]);
    }
  }
  return path;
}

const points = (path, x, y) => path.map(([day, share]) => `${x(day).toFixed(1)},${y(share).toFixed(1)}`).join(" ");

const band = (group, until, x, y) =>
  points([...steps(group.days, group.upper, until), ...steps(group.days, group.lower, until).reverse()], x, y);

function own(task, x, y) {
  if (!task.curve) return [];
  const { days: at, survival, lower, upper } = task.curve;
  const around = lower && h("polygon", { points: points([...smooth(at, upper), ...smooth(at, lower).reverse()], x, y), fill: "#1d2226", "fill-opacity": 0.18 });
  return [around, h("polyline", { points: points(smooth(at, survival), x, y), fill: "none", class: "mine", "stroke-width": 2.8 })].filter(Boolean);
}

function marks(task, until, x) {
  const found = [["lower bound", task.lower_bound_days, "2 3"], ["horizon", task.horizon_days, "6 3"]].filter(([, day]) => day !== null && day <= until);
  return found.map(([word, day, dash]) => {
    const left = x(day) > RIGHT - 70;
    return [h("line", { x1: x(day), x2: x(day), y1: TOP, y2: BOTTOM, stroke: "#565e66", "stroke-dasharray": dash }),
      h("text", { x: x(day) + (left ? -4 : 4), y: word === "horizon" ? TOP + 9 : BOTTOM - 5, class: "halo", "text-anchor": left ? "end" : "start" }, word)];
  }).flat();
}

function atRisk(groups, until, x) {
  if (!groups.length) return [];
  const top = BOTTOM + 42;
  return [h("text", { x: 2, y: top, class: "soft" }, "at risk"),
    ...groups.map((group, k) => [
      h("text", { x: 2, y: top + 13 * (k + 1), style: `fill:${COLOURS[k % 2]}` }, group.name),
      ...group.at_risk.filter((one) => one.days <= until + 1).map((one) => h("text", { x: x(one.days), y: top + 13 * (k + 1), "text-anchor": "middle" }, String(one.n)))]).flat()];
}

function legend(task, groups) {
  const entry = (kind, text, colour) => h("span", { class: "entry" }, h("span", { class: `swatch ${kind}`, style: colour ? `border-color:${colour}` : null }), text);
  return h("figcaption", {},
    task.curve && entry("mine", `this patient${task.curve.lower ? " ± 2 SD of members" : ""}`),
    groups.map((group, k) => entry(k % 2 ? "dashed" : "", `${group.name}, ${group.n} test patients${group.name === task.group ? " (this patient's group)" : ""}`, COLOURS[k % 2])),
    groups.length > 0 && h("span", { class: "note" }, "Kaplan-Meier with 95 % bands"),
    task.horizon_days !== null && h("span", { class: "note" }, `horizon: ${days(task.horizon_days)}`));
}
