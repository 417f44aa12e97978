// Scores of a slide's tiles as colours. Knows nothing of the viewer: it is handed a canvas and where the slide lies on it.

import { colour } from "./colours.js";

const MOST_CELLS = 16e6; // of the picture that holds a pixel a tile

/** The maps of one slide: {size, x, y, maps: {name: {raw, percentile, highest}}} of `/scores`, drawn and looked up. */
export class Heatmap {
  constructor(scores) {
    Object.assign(this, { size: scores.size, x: scores.x, y: scores.y, maps: scores.maps, count: scores.x.length });
    this.left = this.x.reduce((a, b) => Math.min(a, b), Infinity);
    this.top = this.y.reduce((a, b) => Math.min(a, b), Infinity);
    const cells = (values, from) => values.map((value) => (value - from) / this.size);
    const [across, down] = [cells(this.x, this.left), cells(this.y, this.top)];
    this.wide = across.reduce((a, b) => Math.max(a, b), 0) + 1;
    this.high = down.reduce((a, b) => Math.max(a, b), 0) + 1;
    const onGrid = [...across, ...down].every(Number.isInteger) && this.wide * this.high <= MOST_CELLS;
    // one pixel a tile: a redraw is then one picture, whatever the number of tiles
    this.cells = onGrid && this.count ? new Map(across.map((x, k) => [down[k] * this.wide + x, k])) : null;
    this.shares = null;
  }

  /**
   * {least, most, values} of a map in its scale: percentile (0 to 100, of this slide) or raw, from 0 to the highest of the
   * patient's slides, so that a slide whose scores are weak looks weak.
   */
  scaled(name, scale) {
    const { raw, percentile, highest } = this.maps[name];
    if (scale === "percentile" && percentile) return { least: 0, most: 100, values: percentile };
    return { least: 0, most: highest > 0 ? highest : 1, values: raw };
  }

  /** Chooses the map that is drawn; tiles whose share of the scale is below `threshold` are not. Null: none is. */
  choose(name, scale, threshold) {
    this.shares = null;
    if (!name || !this.maps[name] || !this.count) return;
    const { least, most, values } = this.scaled(name, scale);
    this.shares = values.map((value) => (value === null ? NaN : (value - least) / (most - least)));
    this.threshold = threshold;
    if (this.cells) this.picture = this.painted();
  }

  /** Whether a tile is drawn. */
  shown(k) {
    return this.shares !== null && this.shares[k] >= this.threshold - 1e-9;
  }

  painted() {
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [this.wide, this.high];
    const context = picture.getContext("2d");
    const pixels = context.createImageData(this.wide, this.high);
    for (const [cell, k] of this.cells) if (this.shown(k)) pixels.data.set([...colour(this.shares[k]), 255], 4 * cell);
    context.putImageData(pixels, 0, 0);
    return picture;
  }

  /** Draws what is seen. `view`: screen place of the slide's corner, pixels of the screen per slide pixel, and its size. */
  draw(context, view) {
    if (!this.shares) return;
    const edge = this.size * view.scale;
    const [left, top] = [view.left + this.left * view.scale, view.top + this.top * view.scale];
    if (this.cells) {
      // only the cells in sight: a picture stretched to a million pixels loses its place
      const [x0, y0] = [Math.max(0, Math.floor(-left / edge)), Math.max(0, Math.floor(-top / edge))];
      const x1 = Math.min(this.wide, Math.ceil((view.width - left) / edge));
      const y1 = Math.min(this.high, Math.ceil((view.height - top) / edge));
      if (x1 <= x0 || y1 <= y0) return;
      context.imageSmoothingEnabled = false;
      context.drawImage(this.picture, x0, y0, x1 - x0, y1 - y0, left + x0 * edge, top + y0 * edge, (x1 - x0) * edge, (y1 - y0) * edge);
      return;
    }
    for (let k = 0; k < this.count; k += 1) {
      const [x, y] = [view.left + this.x[k] * view.scale, view.top + this.y[k] * view.scale];
      if (!this.shown(k) || x > view.width || y > view.height || x + edge < 0 || y + edge < 0) continue;
      context.fillStyle = `rgb(${colour(this.shares[k]).join(",")})`;
      context.fillRect(x, y, edge, edge);
    }
  }

  /** The number of the tile at a slide pixel, -1 where there is none. */
  at(x, y) {
    if (this.cells) {
      const [across, down] = [Math.floor((x - this.left) / this.size), Math.floor((y - this.top) / this.size)];
      if (across < 0 || down < 0 || across >= this.wide || down >= this.high) return -1;
      return this.cells.get(down * this.wide + across) ?? -1;
    }
    for (let k = this.count - 1; k >= 0; k -= 1) {
      if (x >= this.x[k] && x < this.x[k] + this.size && y >= this.y[k] && y < this.y[k] + this.size) return k;
    }
    return -1;
  }

  /** Numbers of the tiles of a map, highest first; tiles without a score are left out. */
  ranked(name) {
    const { raw } = this.maps[name];
    return raw.map((_, k) => k).filter((k) => raw[k] !== null).sort((a, b) => raw[b] - raw[a] || a - b);
  }
}

/** What a map is, for people who did not make it. */
export const meaning = (name) => {
  if (name === "attention") return "Attention: weight of a tile in the pooled slide, the same for every task. Not its influence on a prediction.";
  const task = name.split(":").slice(1).join(":");
  return `Influence on ${task}: attention × gradient. How much a tile can move the ${task} score, not in which direction; conditional on the other modalities.`;
};

/** A score in three digits. */
export const score = (value) => (value === null ? "none" : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(2) : value.toPrecision(3));
