// The tiles that a map puts first and last, as pictures; one that is chosen is flown to.

import { h } from "./api.js";

const MOST = 8; // to each end
const CROP_PX = 192;

/** The strip of a map's highest and lowest tiles. `fly(k)` is called with the number of the tile that was chosen. */
export function strip(n, heat, name, fly) {
  const order = heat.ranked(name);
  const some = Math.min(MOST, Math.floor(order.length / 2) || order.length);
  const { percentile } = heat.maps[name];
  const one = (k, rank) => {
    const place = percentile ? `percentile ${Number(percentile[k].toFixed(1))}` : "";
    const query = new URLSearchParams({ x: heat.x[k], y: heat.y[k], size: heat.size, px: CROP_PX });
    return h("button", { type: "button", class: "slide-tile", "data-tile": k, "aria-label": `tile of rank ${rank} of ${order.length}, ${place}: fly there`, click: () => fly(k) },
      h("img", { src: `/api/slides/${n}/crop.jpg?${query}`, alt: "", loading: "lazy", width: 84, height: 84 }),
      h("span", {}, `rank ${rank}`), h("span", { class: "soft" }, place));
  };
  const row = (title, tiles) => h("section", { "aria-label": title }, h("h3", {}, title), h("div", { class: "slide-tiles" }, ...tiles));
  const lowest = order.length > some ? order.slice(-some).map((k, at) => one(k, order.length - some + at + 1)).reverse() : [];
  return [
    row("Highest tiles", order.slice(0, some).map((k, at) => one(k, at + 1))),
    lowest.length ? row("Lowest tiles", lowest) : null,
  ].filter(Boolean);
}

/** Shows which tile of a strip is marked. */
export const mark = (element, k) => {
  for (const tile of element.querySelectorAll(".slide-tile")) tile.setAttribute("aria-pressed", String(Number(tile.dataset.tile) === k));
};
