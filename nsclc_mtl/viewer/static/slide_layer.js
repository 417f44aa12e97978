// What lies over the slide: the map of its tiles, the contour of the tissue, the tile that is marked and the one under the pointer.

import { h } from "./api.js";

/** A canvas over an OpenSeadragon viewer, drawn again whenever the view moves. */
export class Layer {
  constructor(viewer, width) {
    Object.assign(this, { viewer, width, heat: null, opacity: 0.45, contour: null, outlined: true, marked: -1, pointed: -1 });
    this.canvas = h("canvas", { class: "slide-layer", "aria-hidden": "true" });
    viewer.canvas.append(this.canvas);
    viewer.addHandler("update-viewport", () => this.draw());
    viewer.addHandler("resize", () => this.later());
  }

  /** Where the slide's corner lies on the screen, pixels of the screen per slide pixel, and the size of the screen. */
  view() {
    const { viewport } = this.viewer;
    const size = viewport.getContainerSize();
    const corner = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return { left: corner.x, top: corner.y, scale: (size.x * viewport.getZoom(true)) / this.width, width: size.x, height: size.y };
  }

  /** The slide pixel under a place on the screen. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const view = this.view();
    return { x: (event.clientX - box.left - view.left) / view.scale, y: (event.clientY - box.top - view.top) / view.scale };
  }

  /** Takes GeoJSON polygons in slide pixels. */
  trace(geojson) {
    this.contour = new Path2D();
    for (const { geometry } of geojson.features ?? [geojson]) {
      const polygons = geometry?.type === "Polygon" ? [geometry.coordinates] : geometry?.type === "MultiPolygon" ? geometry.coordinates : [];
      for (const ring of polygons.flat()) {
        ring.forEach(([x, y], k) => (k ? this.contour.lineTo(x, y) : this.contour.moveTo(x, y)));
        this.contour.closePath();
      }
    }
    this.later();
  }

  /** Draws with the next frame, once however often it is asked. */
  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    if (!this.viewer.isOpen()) return;
    const [view, dots] = [this.view(), window.devicePixelRatio || 1];
    const [wide, high] = [Math.round(view.width * dots), Math.round(view.height * dots)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const context = this.canvas.getContext("2d");
    context.setTransform(dots, 0, 0, dots, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    if (this.heat) {
      context.globalAlpha = this.opacity;
      this.heat.draw(context, view);
      context.globalAlpha = 1;
    }
    if (this.contour && this.outlined) this.stroke(context, view, dots);
    if (this.heat && this.pointed >= 0 && this.pointed !== this.marked) this.frame(context, view, this.pointed, "#fff", 1.5);
    // the tissue of a marked tile is seen as it is
    if (this.heat && this.marked >= 0) this.frame(context, view, this.marked, "#ff9d2e", 3, true);
  }

  stroke(context, view, dots) {
    context.save();
    context.setTransform(dots * view.scale, 0, 0, dots * view.scale, dots * view.left, dots * view.top);
    for (const [colour, width] of [["rgba(255,255,255,.85)", 4], ["#00558a", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width / view.scale;
      context.stroke(this.contour);
    }
    context.restore();
  }

  frame(context, view, k, colour, width, bare = false) {
    const edge = this.heat.size * view.scale;
    const [x, y] = [view.left + this.heat.x[k] * view.scale, view.top + this.heat.y[k] * view.scale];
    if (bare) context.clearRect(x, y, edge, edge);
    for (const [stroke, line] of [["#11161b", width + 2], [colour, width]]) {
      context.strokeStyle = stroke;
      context.lineWidth = line;
      context.strokeRect(x, y, edge, edge);
    }
  }
}
