// Figures as SVG: axes, lines, steps, bands, whiskers, and points that the keyboard reaches. Knows nothing of patients.

import { h } from "./api.js";

/** Colours of Okabe and Ito, darkened to a contrast of 4.5 on white; dashes tell lines apart without colour. */
export const COLOURS = ["#0068a3", "#b84e00", "#00755a", "#a3437d", "#22262b", "#7a5c00"];
export const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 2"];
const SOFT = "#565e66", GRID = "#e4e7ea", AXIS = "#8a929a";

/** A frame with axes: {svg, x, y, add, width, height, left, right, top, bottom}. x, y: value -> px. An axis is {from, to, ticks, label, say}. */
export function frame({ width = 480, height = 330, left = 62, right = 22, top = 10, bottom = 44, below = 0, x, y, title }) {
  const inside = { left, right: width - right, top, bottom: height - bottom };
  const at = (axis, low, high) => (value) => low + ((value - axis.from) / (axis.to - axis.from || 1)) * (high - low);
  const px = at(x, inside.left, inside.right), py = at(y, inside.bottom, inside.top);
  const svg = h("svg", { viewBox: `0 0 ${width} ${height + below}`, role: "group", "aria-label": title, class: "plot" });
  const say = (axis, tick) => (axis.say ? axis.say(tick) : String(tick));
  for (const tick of y.ticks) {
    svg.append(h("line", { x1: inside.left, x2: inside.right, y1: py(tick), y2: py(tick), stroke: GRID }),
      h("text", { x: inside.left - 6, y: py(tick) + 4, "text-anchor": "end", fill: SOFT }, say(y, tick)));
  }
  for (const tick of x.ticks) {
    svg.append(h("line", { x1: px(tick), x2: px(tick), y1: inside.bottom, y2: inside.bottom + 4, stroke: AXIS }),
      h("text", { x: px(tick), y: inside.bottom + 17, "text-anchor": "middle", fill: SOFT }, say(x, tick)));
  }
  svg.append(h("line", { x1: inside.left, x2: inside.right, y1: inside.bottom, y2: inside.bottom, stroke: AXIS }),
    h("text", { x: (inside.left + inside.right) / 2, y: inside.bottom + 36, "text-anchor": "middle", fill: "#1d2226" }, x.label));
  const middle = (inside.top + inside.bottom) / 2;
  if (y.label) svg.append(h("text", { x: 11, y: middle, "text-anchor": "middle", fill: "#1d2226", transform: `rotate(-90 11 ${middle})` }, y.label));
  return { svg, x: px, y: py, width, height, ...inside, add: (...marks) => svg.append(...marks.flat(2).filter(Boolean)) };
}

const path = (on, xs, ys) => xs.map((v, k) => [v, ys[k]]).filter(([a, b]) => a !== null && b !== null).map(([a, b]) => `${round(on.x(a))},${round(on.y(b))}`).join(" ");
const round = (v) => Math.round(v * 10) / 10;

/** A line through the points; nulls are left out. */
export const line = (on, xs, ys, { colour = COLOURS[0], dash = "", width = 1.8, opacity = 1 } = {}) =>
  h("polyline", { points: path(on, xs, ys), fill: "none", stroke: colour, "stroke-width": width, "stroke-dasharray": dash, "stroke-opacity": opacity });

/** A band between two lines. */
export function band(on, xs, low, high, { colour = COLOURS[0], opacity = 0.13 } = {}) {
  const keep = xs.map((_, k) => k).filter((k) => low[k] !== null && high[k] !== null && xs[k] !== null);
  const there = keep.map((k) => `${round(on.x(xs[k]))},${round(on.y(high[k]))}`);
  const back = keep.reverse().map((k) => `${round(on.x(xs[k]))},${round(on.y(low[k]))}`);
  return h("polygon", { points: [...there, ...back].join(" "), fill: colour, "fill-opacity": opacity });
}

/** [xs, ys] of a step function that starts at (0, start). */
export function stairs(xs, ys, start = 1) {
  const ax = [0], ay = [start];
  xs.forEach((v, k) => { ax.push(v, v); ay.push(ay.at(-1), ys[k]); });
  return [ax, ay];
}

/** A vertical interval with its point; further options are those of `mark`. */
export const whisker = (on, at, value, low, high, { colour = "#22262b", title = "", ...more } = {}) => h("g", {},
  h("title", {}, title),
  low === null || high === null ? null : h("line", { x1: on.x(at), x2: on.x(at), y1: on.y(low), y2: on.y(high), stroke: colour, "stroke-width": 1.2 }),
  mark(on.x(at), on.y(value), { colour, size: 3.8, ...more }));

const SHAPES = {
  circle: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  square: (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  triangle: (x, y, r) => `M${x},${y - 1.25 * r}l${1.2 * r},${2.1 * r}h${-2.4 * r}z`,
};

/** One mark: a shape (circle, square, triangle), filled or hollow. */
export const mark = (x, y, { shape = "circle", colour = COLOURS[0], hollow = false, size = 4.2, ...more } = {}) =>
  h("path", { d: SHAPES[shape](round(x), round(y), size), fill: hollow ? "#fff" : colour, "fill-opacity": hollow ? 0.9 : 0.75, stroke: colour, "stroke-width": 1.4, ...more });

/**
 * Points one can hover, click and walk over. points: [{x, y (px), label, shape, colour, hollow, open: function or null}].
 * One stop of the tab key; arrows go left and right, Home and End to the ends, Enter opens. `told(point, element)` when one
 * is looked at, `told(null)` when none is.
 */
export function points(list, told) {
  const ordered = [...list].sort((a, b) => a.x - b.x || a.y - b.y);
  const marks = ordered.map((point, k) => mark(point.x, point.y, {
    class: point.open ? "opens" : null, shape: point.shape, colour: point.colour, hollow: point.hollow,
    role: point.open ? "link" : "img", tabindex: k ? -1 : 0, "aria-label": point.label,
    click: () => point.open?.(), focus: () => told(point, marks[k]), blur: () => told(null), mouseenter: () => told(point, marks[k]), mouseleave: () => told(null),
    keydown: (event) => {
      const to = { ArrowRight: k + 1, ArrowDown: k + 1, ArrowLeft: k - 1, ArrowUp: k - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Enter") { event.preventDefault(); point.open?.(); }
      if (event.key === "Escape") told(null);
      if (to === undefined || !marks[to]) return;
      event.preventDefault();
      marks[k].setAttribute("tabindex", -1);
      marks[to].setAttribute("tabindex", 0);
      marks[to].focus();
    },
  }));
  return h("g", { class: "points" }, marks);
}

/** A key: [{words, colour, dash, shape, hollow}] as small drawings beside their words. */
export const key = (entries) => h("ul", { class: "key" }, entries.map((entry) => h("li", {},
  h("svg", { viewBox: "0 0 26 14", width: 26, height: 14, "aria-hidden": "true" },
    entry.shape ? mark(13, 7, entry) : h("line", { x1: 1, x2: 25, y1: 7, y2: 7, stroke: entry.colour, "stroke-width": entry.width ?? 2, "stroke-dasharray": entry.dash ?? "", "stroke-opacity": entry.opacity ?? 1 })),
  entry.words)));

/** Round ticks from `from` to `to`, about `count` of them. */
export function ticks(from, to, count = 5) {
  const raw = (to - from) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  return Array.from({ length: Math.floor((to - from) / step + 1e-9) + 1 }, (_, k) => +(from + k * step).toPrecision(12));
}
