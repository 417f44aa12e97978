// The controls of a slide's map: which one, how strong, from where on; and the legend that says what its colours mean.

import { h } from "./api.js";
import { gradient } from "./colours.js";
import { meaning, score } from "./heatmap.js";

/** Elements of the panel, and `show(heat, task)`. `change(name, scale, threshold)` is called with what is to be drawn. */
export function panel(state, change) {
  const told = { heat: null, task: "", scale: state.colours === "raw" ? "raw" : "percentile", threshold: state.least > 0 && state.least <= 1 ? state.least : 0 };
  const coloured = (changes) => {
    Object.assign(told, changes);
    state.set({ colours: told.scale === "raw" ? "raw" : undefined, least: told.threshold || undefined });
  };
  const select = h("select", { "aria-label": "map over the slide", change: () => { coloured({ threshold: 0 }); state.set({ map: select.value }); } });
  const opacity = slider("Opacity", 100, (share) => state.set({ opacity: share }));
  const least = slider("Show from", 1000, (share) => { coloured({ threshold: share }); drawn(); });
  const scales = Object.fromEntries(["percentile", "raw"].map((scale) => [
    scale, h("button", { type: "button", click: () => { coloured({ scale, threshold: 0 }); drawn(); } }, scale === "raw" ? "Raw score" : "Percentile"),
  ]));
  const legend = h("div", { class: "slide-legend" });
  const words = h("p", { class: "soft slide-words" });
  const settings = h("div", { class: "slide-settings" },
    opacity.element, least.element, h("div", { class: "slide-scales", role: "group", "aria-label": "colours show" }, scales.percentile, scales.raw), legend, words);
  const empty = h("p", { class: "soft slide-words" });
  const choice = h("label", { class: "slide-choice" }, h("span", {}, "Map"), select);
  const element = h("div", { class: "slide-map" }, choice, settings, empty);

  /** The name of the map that is chosen, null for none. */
  const name = () => {
    const found = told.heat?.maps ?? {};
    const own = `influence:${told.task}`;
    const known = ["attention", "none"].includes(state.map) || state.map?.startsWith("influence"); // an address may say anything
    const wanted = known ? state.map : (found[own] ? "influence" : "attention");
    if (wanted === "none") return null;
    const column = wanted.startsWith("influence") ? own : wanted;
    return found[column] ? column : null;
  };

  const strength = () => opacity.set(state.opacity ?? 0.45, (share) => `${Math.round(100 * share)} %`);
  const drawn = () => {
    const chosen = name();
    select.value = chosen === null ? "none" : chosen === "attention" ? "attention" : "influence";
    settings.hidden = chosen === null;
    strength();
    if (chosen !== null) {
      const ranks = told.heat.maps[chosen].percentile !== null;
      if (!ranks) told.scale = "raw";
      scales.percentile.disabled = !ranks;
      for (const [scale, button] of Object.entries(scales)) button.setAttribute("aria-pressed", String(scale === told.scale));
      const { least: low, most: high } = told.heat.scaled(chosen, told.scale);
      const value = (share) => (told.scale === "raw" ? score(low + share * (high - low)) : String(Number((100 * share).toFixed(1))));
      least.set(told.threshold, (share) => (share > 0 ? value(share) : "all tiles"));
      legend.replaceChildren(...key(told, chosen, value));
      words.textContent = meaning(chosen);
    }
    change(chosen, told.scale, told.threshold);
  };

  const show = (heat, task, absent = "") => {
    if (told.heat !== null && (told.heat !== heat || told.task !== task)) coloured({ threshold: 0 }); // another map has other scores
    Object.assign(told, { heat, task });
    choice.hidden = heat === null;
    empty.textContent = absent;
    const known = heat?.maps ?? {};
    select.replaceChildren(
      known.attention ? h("option", { value: "attention" }, "Attention") : null,
      h("option", { value: "influence", disabled: !known[`influence:${task}`] }, `Influence on ${task || "the task"}`),
      h("option", { value: "none" }, "None"),
    );
    drawn();
  };
  state.on("map", drawn);
  state.on("opacity", strength);
  return { element, show, name };
}

function slider(label, steps, changed) {
  const input = h("input", { type: "range", min: 0, max: steps, input: () => changed(Number(input.value) / steps) });
  const output = h("output", {});
  const element = h("label", { class: "slide-slider" }, h("span", {}, label), input, output);
  const set = (share, written) => {
    input.value = Math.round(share * steps);
    output.textContent = written(share);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  return { element, set };
}

function key({ heat, scale, threshold }, name, value) {
  const what = name === "attention" ? "attention" : "influence";
  const unit = scale === "raw" ? `raw ${what}, no unit, from 0 to the highest of this patient's slides` : `percentile of ${what} within this slide (100 = highest), not to be compared between slides`;
  const hidden = h("span", { class: "slide-hidden", style: `width: ${100 * threshold}%` });
  const shares = scale === "raw" ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
  return [
    h("div", { class: "slide-ramp", role: "img", "aria-label": `colours from dark blue, ${value(0)}, to yellow, ${value(1)}: ${unit}`, style: `background: ${gradient()}` }, hidden),
    h("div", { class: "slide-ticks", "aria-hidden": "true" }, ...shares.map((share) => h("span", {}, value(share)))),
    h("div", { class: "slide-unit" }, `Colour: ${unit}; ${heat.count.toLocaleString("en")} tiles`),
  ];
}
