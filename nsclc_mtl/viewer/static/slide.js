// Slides of a patient: OpenSeadragon over the server's tiles, our controls around it, and the model's maps over the tissue.

import { get, h } from "./api.js";
import { Heatmap, score } from "./heatmap.js";
import { POWERS, bar, powerOf, scaleOf, written } from "./magnification.js";
import { Layer } from "./slide_layer.js";
import { panel } from "./slide_panel.js";
import { mark, strip } from "./slide_strip.js";

const UNEXPLAINED = "The model's maps are not there for this slide. Run mtl predict with explain.patients=all, and serve that run.";
const PLACE_MS = 250; // the address follows when the view has rested so long
const FLY_POWER = 20; // a tile is looked at so, where it fits
const LEAST_LEVEL = 8; // the level that fits into one tile: coarser ones show nothing more

/** Shows the slides of `detail.slides` in the element, at the place that `state` names. Gives {unmount}. */
export function mount(element, detail, state) {
  needed("link", { rel: "stylesheet", href: "/static/slide.css" });
  const stage = h("div", { class: "slide-stage" });
  const tabs = h("div", { class: "slide-tabs", role: "group", "aria-label": "slides of this patient" });
  const powers = POWERS.map((power) => h("button", { type: "button", click: () => scene.power(power), "data-power": power }, written(power)));
  const readout = h("output", { class: "slide-power", "aria-label": "magnification" });
  const layers = panel(state, (name, scale, threshold) => scene.map(name, scale, threshold));
  const outlined = h("input", { type: "checkbox", checked: true, change: () => scene.outline(outlined.checked) });
  const contour = h("label", { class: "slide-check" }, outlined, "Outline of the tissue");
  const tiles = h("div", { class: "slide-strip" });
  const root = h("div", { class: "slide" },
    tabs,
    h("div", { class: "slide-bar" },
      h("div", { class: "slide-powers", role: "group", "aria-label": "magnification" }, ...powers),
      h("button", { type: "button", "aria-label": "zoom out", click: () => scene.zoom(1 / 1.5) }, "−"),
      h("button", { type: "button", "aria-label": "zoom in", click: () => scene.zoom(1.5) }, "+"),
      h("button", { type: "button", click: () => scene.home() }, "Whole slide"),
      h("button", { type: "button", click: () => (document.fullscreenElement ? document.exitFullscreen() : box.requestFullscreen?.()) }, "Full screen")),
    h("div", { class: "slide-main" }, stage, h("div", { class: "slide-side" }, layers.element, contour,
      h("p", { class: "soft slide-keys" }, "Keys: arrows move, + − zoom, 0 whole slide, 1 to 6 magnification, h map on or off"))),
    tiles);
  const box = h("div", { class: "slide-box" }, root);
  element.replaceChildren(box);

  const task = () => state.task ?? detail.tasks?.[0]?.name ?? "";
  let scene = nothing;
  let turn = 0;

  const show = async (n) => {
    const mine = (turn += 1);
    scene.close();
    scene = nothing;
    stage.replaceChildren(h("p", { class: "slide-note" }, "Opening the slide …"));
    tiles.replaceChildren();
    layers.show(null, task());
    const slide = detail.slides.find((one) => one.n === n);
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(Number(tab.dataset.n) === n));
    contour.hidden = !slide.contour;
    try {
      await needed("script", { src: "/static/vendor/openseadragon.js" }, () => window.OpenSeadragon);
      const info = await get(`/api/slides/${n}`);
      if (mine !== turn) return;
      scene = opened({ n, slide, info, stage, state, layers, tiles, powers, readout, task });
      scene.outline(outlined.checked);
    } catch (fault) {
      if (mine === turn) stage.replaceChildren(h("p", { class: "slide-note", role: "alert" }, `This slide cannot be shown: ${fault.message}`));
    }
  };

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const acts = { "+": () => scene.zoom(1.5), "=": () => scene.zoom(1.5), "-": () => scene.zoom(1 / 1.5), 0: () => scene.home(), h: () => scene.hide() };
    POWERS.forEach((power, k) => { acts[k + 1] = () => scene.power(power); });
    const act = move && stage.contains(event.target) ? () => scene.pan(...move) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  root.addEventListener("keydown", keys, true);

  const listed = detail.slides ?? [];
  const first = () => (listed.find((one) => one.n === state.slide) ?? listed.find((one) => one.maps) ?? listed[0]).n;
  if (!listed.length) {
    element.replaceChildren(h("p", { class: "soft" }, "No slide of this patient is at hand."));
    return { unmount: () => {} };
  }
  tabs.append(...listed.map((one) => h("button", { type: "button", "data-n": one.n, title: one.id,
    click: () => state.set({ slide: one.n, x: undefined, y: undefined, zoom: undefined }) },
  h("img", { src: `/api/slides/${one.n}/thumbnail.jpg`, alt: "", height: 28 }), h("span", {}, one.id))));
  tabs.hidden = listed.length < 2;
  // a place is one of its own slide: what an address names for another is not this one's
  if (state.slide !== undefined && !listed.some((one) => one.n === state.slide)) state.set({ slide: undefined, x: undefined, y: undefined, zoom: undefined });
  let shown = first();
  let gone = false;
  state.on("slide", () => { if (!gone && first() !== shown) show((shown = first())); });
  state.on("task", () => scene.task());
  state.on("opacity", (share) => scene.opacity(share));
  for (const key of ["x", "y", "zoom"]) state.on(key, () => scene.follow());
  show(shown);
  return { unmount: () => { gone = true; turn += 1; scene.close(); scene = nothing; element.replaceChildren(); } };
}

// What the controls speak to while no slide is open.
const idle = () => {};
const nothing = { close: idle, power: idle, zoom: idle, home: idle, pan: idle, hide: idle, map: idle, outline: idle, task: idle, opacity: idle, follow: idle };

// One open slide: its viewer, what lies over it, and what the controls can do with it.
function opened({ n, slide, info, stage, state, layers, tiles, powers, readout, task }) {
  const canvas = h("div", { class: "slide-canvas" });
  const scalebar = h("div", { class: "slide-scale" }, h("span", {}), h("i", {}));
  const numbers = h("output", { class: "slide-numbers", hidden: true });
  stage.replaceChildren(canvas, readout, scalebar, numbers);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const viewer = new OpenSeadragon.Viewer({
    element: canvas, prefixUrl: "", drawer: "canvas", showNavigationControl: false, keyboardNavEnabled: false,
    showNavigator: true, navigatorPosition: "TOP_RIGHT", navigatorSizeRatio: 0.17, navigatorAutoFade: false, navigatorBackground: "#fff",
    navigatorBorderColor: "#565e66", navigatorDisplayRegionColor: "#a34700", maxZoomPixelRatio: 2.1, visibilityRatio: 0.3, preserveImageSizeOnResize: true,
    animationTime: still ? 0 : 0.5, blendTime: 0, imageLoaderLimit: 6, maxImageCacheCount: 400, placeholderFillStyle: "#f3f5f7",
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsPen: { clickToZoom: false },
    tileSources: { width: info.width, height: info.height, tileSize: info.tile, tileOverlap: 0, maxLevel: info.levels - 1, minLevel: Math.min(LEAST_LEVEL, info.levels - 1),
      getTileUrl: (level, x, y) => `/api/slides/${n}/tile/${level}/${x}/${y}.jpg` },
  });
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", `slide ${info.id}: arrows move, plus and minus zoom, 0 shows the whole slide, 1 to 6 choose a magnification`);
  const layer = new Layer(viewer, info.width);
  layer.opacity = state.opacity ?? layer.opacity;
  const { viewport } = viewer;
  let [heat, placing, timer, map, closed] = [null, false, 0, null, false];
  let whole = true; // nobody has moved: the whole slide stays in sight, whatever becomes of its place on the page

  const scan = powerOf(1, info.mpp); // magnification at which a scanned pixel is one of the screen
  const zoomOf = (power) => (scaleOf(power, info.mpp) * info.width) / viewport.getContainerSize().x;
  const settled = (x, y, power, at_once = still) => {
    whole = false;
    viewport.panTo(new OpenSeadragon.Point(x / info.width, y / info.width), at_once);
    viewport.zoomTo(zoomOf(power), null, at_once);
    viewport.applyConstraints(at_once);
  };
  const home = (at_once = still) => { whole = true; viewport.goHome(at_once); };
  const limits = () => { viewport.minZoomLevel = Math.min(0.8 * viewport.getHomeZoom(), zoomOf(1)); };
  const place = () => {
    if (whole) return { slide: n, x: undefined, y: undefined, zoom: undefined };
    const [view, centre] = [layer.view(), viewport.getCenter(true)];
    return { slide: n, x: Math.round(centre.x * info.width), y: Math.round(centre.y * info.width), zoom: Number(powerOf(view.scale, info.mpp).toFixed(4)) };
  };
  const told = () => {
    const { scale } = layer.view();
    const power = powerOf(scale, info.mpp);
    const { px, text } = bar(info.mpp / scale);
    scalebar.firstChild.textContent = text;
    scalebar.lastChild.style.width = `${px}px`;
    readout.textContent = `${written(power)} · ${Number((info.mpp / scale).toPrecision(3))} µm/px${power > 1.05 * scan ? ` (beyond the scan's ${written(scan)})` : ""}`;
    for (const button of powers) {
      button.setAttribute("aria-pressed", String(Math.abs(Number(button.dataset.power) / power - 1) < 0.01));
      button.disabled = zoomOf(Number(button.dataset.power)) > viewport.getMaxZoom() * 1.001;
    }
  };
  const rested = () => {
    if (closed) return;
    placing = true;
    state.set(place());
    placing = false;
  };
  const read = (k) => {
    numbers.hidden = k < 0 || !heat;
    if (numbers.hidden) return;
    numbers.replaceChildren(...[map, ...Object.keys(heat.maps).filter((name) => name !== map && [`influence:${task()}`, "attention"].includes(name))].filter(Boolean).map((name) => {
      const { raw, percentile } = heat.maps[name];
      const rank = percentile ? `, percentile ${Number(percentile[k].toFixed(1))}` : "";
      return h("span", {}, `${name.replace("influence:", "influence on ")} ${score(raw[k])}${rank}`);
    }));
  };
  const chosen = (k) => { layer.marked = k; mark(tiles, k); read(k); layer.later(); };
  const fly = (k) => {
    chosen(k);
    const { width, height } = layer.view();
    const fits = powerOf((0.95 * Math.min(width, height)) / heat.size, info.mpp); // at more, a part of the tile is out of sight
    const power = POWERS.findLast((one) => one <= Math.min(FLY_POWER, 2.1 * scan, fits)) ?? fits;
    settled(heat.x[k] + heat.size / 2, heat.y[k] + heat.size / 2, power);
  };

  viewer.addOnceHandler("open", () => {
    limits();
    if (state.x !== undefined && state.y !== undefined && state.zoom > 0) settled(state.x, state.y, state.zoom, true);
    told();
    stage.dataset.open = n;
    viewer.addHandler("update-viewport", () => { told(); clearTimeout(timer); timer = setTimeout(rested, PLACE_MS); });
  });
  for (const act of ["canvas-drag", "canvas-scroll", "canvas-pinch", "canvas-double-click", "navigator-click", "navigator-drag"]) viewer.addHandler(act, () => { whole = false; });
  viewer.addHandler("resize", () => requestAnimationFrame(() => {
    if (closed || !viewer.isOpen()) return;
    limits();
    if (whole) home(true);
  }));
  viewer.addHandler("open-failed", () => stage.append(h("p", { class: "slide-note", role: "alert" }, "This slide cannot be shown.")));
  viewer.addHandler("tile-load-failed", () => { scalebar.title = "parts of this slide cannot be read"; });
  viewer.addHandler("canvas-click", (event) => { if (event.quick && heat && map) chosen(at(event.originalEvent)); });
  const at = (event) => { const { x, y } = layer.place(event); return heat ? heat.at(x, y) : -1; };
  canvas.addEventListener("pointermove", (event) => {
    const k = map && event.pointerType !== "touch" ? at(event) : -1;
    if (k === layer.pointed) return;
    layer.pointed = k;
    read(k >= 0 ? k : layer.marked);
    layer.later();
  });
  canvas.addEventListener("pointerleave", () => { layer.pointed = -1; read(layer.marked); layer.later(); });

  if (slide.contour) get(`/api/slides/${n}/contour`).then((found) => layer.trace(found), idle);
  if (slide.maps) {
    get(`/api/slides/${n}/scores`).then((found) => {
      if (closed) return;
      heat = layer.heat = new Heatmap(found);
      layers.show(heat, task());
    }, (fault) => { if (!closed) layers.show(null, task(), `The model's maps cannot be shown: ${fault.message}`); });
  } else layers.show(null, task(), UNEXPLAINED);

  return {
    close: () => { closed = true; clearTimeout(timer); delete stage.dataset.open; viewer.destroy(); },
    power: (power) => { whole = false; viewport.zoomTo(zoomOf(power), null, still); viewport.applyConstraints(); },
    zoom: (by) => { whole = false; viewport.zoomBy(by); viewport.applyConstraints(); },
    home: () => home(),
    pan: (x, y) => {
      whole = false;
      const box = viewport.getBounds();
      viewport.panBy(new OpenSeadragon.Point((x * box.width) / 5, (y * box.height) / 5));
      viewport.applyConstraints();
    },
    hide: () => state.set({ map: map === null ? (state.kept ?? "attention") : "none", kept: map?.startsWith("influence") ? "influence" : "attention" }),
    map: (name, scale, threshold) => {
      if (!heat) return;
      heat.choose(name, scale, threshold);
      if (name !== map) tiles.replaceChildren(...(name ? strip(n, heat, name, fly) : []));
      map = name;
      if (!name) layer.marked = layer.pointed = -1;
      mark(tiles, layer.marked);
      read(layer.marked);
      layer.later();
    },
    outline: (on) => { layer.outlined = on; layer.later(); },
    task: () => { if (heat) layers.show(heat, task()); },
    opacity: (share) => { layer.opacity = share ?? 0.45; layer.later(); },
    follow: () => { if (!placing && viewer.isOpen() && state.slide === n && state.x !== undefined && state.zoom > 0) settled(state.x, state.y, state.zoom); },
  };
}

// Brings a file that the page has not brought itself.
async function needed(name, attributes, there = () => document.querySelector(`link[href="${attributes.href}"]`)) {
  if (there()) return;
  const element = h(name, attributes);
  const loaded = new Promise((resolve, reject) => {
    element.addEventListener("load", resolve);
    element.addEventListener("error", () => reject(new Error("the slide viewer is not installed; run make viewer, then serve again")));
  });
  document.head.append(element);
  await loaded;
}
