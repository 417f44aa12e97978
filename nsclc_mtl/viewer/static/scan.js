// The scans of a patient: three planes, windows, the lesion's outline, and where the score of the current task comes from.

import { get, h } from "./api.js";
import { METHODS, legend, number } from "./scan-legend.js";

const WIDE = 760; // px of width from which three planes stand side by side

/** Puts the scan viewer of a patient into an element. */
export const mount = async (element, detail, state) => {
  if (!detail.scans?.length) {
    element.replaceChildren(h("p", { class: "soft" }, "No scan of this patient is at hand."));
    return;
  }
  await styled();
  const panel = new Panel(detail, state);
  element.replaceChildren(panel.element);
  await panel.start();
};

/** The viewer's own style sheet, where the page has not brought it. */
const styled = () => document.querySelector('link[href="/static/scan.css"]') ? null : new Promise((done) => {
  document.head.append(h("link", { rel: "stylesheet", href: "/static/scan.css", load: done, error: done }));
});

class Panel {
  constructor(detail, state) {
    const { scanmap, scanopacity } = state;
    Object.assign(this, { detail, state, asked: 0, opacity: scanopacity >= 0 && scanopacity <= 1 ? scanopacity : 0.35, method: scanmap === "none" ? "" : scanmap, visible: { map: true, mask: true, crosshair: true }, plane: 0, drag: false });
    this.scan = detail.scans.find((one) => one.n === state.scan) ?? detail.scans[0];
    const button = (text, title, act, pressed) => h("button", { type: "button", title, click: act, "aria-pressed": pressed === undefined ? undefined : String(pressed) }, text);
    this.tabs = h("div", { class: "scan-tabs", role: "group", "aria-label": "scans" }, detail.scans.map((one) =>
      h("button", { type: "button", "data-n": one.n, click: () => state.set({ scan: one.n }) }, `${one.modality} · ${one.id}`)));
    this.windows = h("span", { class: "scan-windows", role: "group", "aria-label": "window" });
    this.reading = h("output", { class: "scan-window", "aria-label": "level and width" });
    this.dragging = button("drag sets window", "Dragging with the left button or a finger changes the window; the right button always does", () => this.setDrag(!this.drag), false);
    this.outlined = button("outline", "Line around the lesion (m)", () => this.toggle("mask"), true);
    this.method_ = h("select", { "aria-label": "map", change: () => this.choose(this.method_.value) });
    this.task_ = h("select", { "aria-label": "task of the map", change: () => state.set({ task: this.task_.value }) });
    this.slider = h("input", { type: "range", min: 0, max: 100, value: Math.round(100 * this.opacity), "aria-label": "opacity of the map, percent", input: () => this.fade() });
    this.faded = h("output", {}, `${this.slider.value} %`);
    this.canvas = h("canvas", { role: "img" });
    this.labels = h("div", { class: "scan-labels", "aria-hidden": "true" });
    this.status = h("p", { class: "scan-status", role: "status" });
    this.stage = h("div", { class: "scan-stage", tabindex: -1 }, h("div", { class: "scan-canvas" }, this.canvas), this.labels, this.status);
    this.values = h("output", { class: "scan-values" });
    this.legend = h("div", { class: "scan-legend" });
    this.notes = h("p", { class: "soft scan-notes" });
    this.tools = h("div", { class: "scan-tools" },
      h("div", {}, h("span", { class: "soft" }, "Window"), this.windows, this.reading, this.dragging),
      this.mapping = h("div", {}, h("label", {}, h("span", { class: "soft" }, "Map"), this.method_), h("label", {}, h("span", { class: "soft" }, "of"), this.task_),
        h("label", {}, h("span", { class: "soft" }, "opacity"), this.slider, this.faded)),
      h("div", {}, this.outlined,
        this.home = button("to the lesion", "Planes through the lesion, the whole scan in sight (l)", () => this.back()),
        button("−", "Smaller (-)", () => this.view?.zoom(1 / 1.25)), button("+", "Larger (+)", () => this.view?.zoom(1.25))));
    this.element = h("section", { class: "scan", "aria-label": "scans" }, detail.scans.length > 1 ? this.tabs : null, this.tools, this.stage, this.values, this.legend,
      this.keys = h("div", { class: "soft scan-keys" }, "Radiological view: the patient's right is at the left of the axial and coronal picture, the front at the left of the sagittal one.",
        h("details", {}, h("summary", {}, "Mouse and keys"), "Click: all planes through that point. Wheel or arrow keys: slices, Page Up and Down ten (1, 2, 3 choose the plane). Right button: window. ",
          "Keys: + and − size, o map, m outline, c crosshair, l back to the lesion.")), this.notes);
    state.on("scan", (n) => { const one = detail.scans.find((scan) => scan.n === n); if (one && one !== this.scan) { this.scan = one; if (this.view) this.open(); } });
    state.on("task", () => this.overlay());
    this.listen();
  }

  get task() { return this.state.task ?? this.detail.tasks?.[0]?.name; }

  /** Brings NiiVue, then the scan. */
  async start() {
    try {
      const { drawable, View } = await import("./scan-view.js");
      if (!drawable()) return await this.still();
      this.view = await View.on(this.canvas, () => this.moved());
      this.canvas.addEventListener("webglcontextlost", () => this.tell("The graphics card gave up; reload the page."));
      new ResizeObserver(() => { this.view.layout(this.stage.clientWidth >= WIDE); requestAnimationFrame(() => this.moved()); }).observe(this.stage);
      await this.open();
    } catch (error) { this.tell(`The scan viewer did not start: ${error.message}.`, true); }
  }

  /** Loads the scan that is chosen. A later wish overtakes an earlier one. */
  async open() {
    const mine = ++this.asked;
    const path = `/api/scans/${this.scan.n}`;
    for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(Number(tab.dataset.n) === this.scan.n));
    this.info = this.grey = null;
    this.tell("Reading the scan …");
    try {
      const info = await get(path);
      const [image, lesion] = await Promise.all([bytes(`${path}/image.nii.gz`), info.mask ? bytes(`${path}/mask.nii.gz`) : null]);
      if (mine !== this.asked || !this.view) return;
      this.info = info;
      const start = info.windows.find((one) => one.name === info.window) ?? info.windows[0];
      await this.view.load(image, lesion, { ...start, darkOnWhite: info.dark_on_white });
      this.windows.replaceChildren(...info.windows.map((one) => h("button", { type: "button", "data-window": one.name, click: () => this.setWindow(one) }, one.name)));
      this.setWindow(start);
      this.outlined.disabled = !info.mask;
      this.mapping.hidden = !info.maps.length;
      this.home.textContent = info.lesion_mm ? "to the lesion" : "to the middle";
      this.describe();
      this.tell("");
      this.view.outline(this.visible.mask);
      this.view.lookAt(info.lesion_mm);
      await this.overlay();
    } catch (error) {
      if (mine === this.asked) this.tell(`This scan cannot be shown: ${error.message}.`, true);
    }
  }

  /** Lays the map of the current task over the scan. */
  async overlay() {
    if (!this.info) return;
    const mine = (this.laid = (this.laid ?? 0) + 1);
    this.stage.dataset.map = "";
    const tasks = (this.detail.tasks ?? []).map((one) => one.name);
    fill(this.task_, tasks, this.task);
    const here = this.info.maps.filter((map) => map.task === this.task).map((map) => map.method);
    if (this.method === undefined && this.info.maps.length) this.method = this.info.maps[0].method;
    const method = here.includes(this.method) || this.method === "" ? this.method : here[0] ?? "";
    fill(this.method_, ["", ...here], method, (name) => METHODS[name] ?? (name || "none"));
    this.slider.disabled = !method;
    if (!method) {
      await this.view?.lay(null);
      const why = this.info.maps.length ? (here.length ? "" : `No map was made of this scan for ${this.task}.`) : "No map was made of this scan: mtl predict draws them for the patients it explains.";
      this.legend.replaceChildren(...(why ? [h("p", { class: "soft" }, why)] : []));
      this.stage.dataset.map = "none";
      this.moved();
      return;
    }
    try {
      const map = await bytes(`/api/scans/${this.scan.n}/maps/${encodeURIComponent(method)}/${encodeURIComponent(this.task)}.nii.gz`);
      if (mine !== this.laid) return;
      const limit = await this.view.lay(map, this.shown());
      const { elements, paint } = legend(method, this.detail.tasks.find((one) => one.name === this.task), limit);
      this.legend.replaceChildren(...elements);
      this.paint = paint;
      this.#paint();
      this.stage.dataset.map = `${method} ${this.task}`;
      this.moved();
    } catch (error) {
      if (mine === this.laid) this.legend.replaceChildren(h("p", { class: "warn" }, `The map cannot be shown: ${error.message}`));
    }
  }

  describe() {
    const { info } = this;
    const said = [`${info.shape.join(" × ")} voxels of ${info.spacing_mm.map((mm) => Number(mm.toPrecision(3))).join(" × ")} mm`];
    if (info.lesion_ml !== null) said.push(`outlined lesion ${info.lesion_ml} ml`);
    if (!info.mask && !info.mask_fault) said.push("nobody outlined the lesion");
    said.push(...info.notes);
    this.notes.replaceChildren(`${said.join("; ")}.`, ...(info.mask_fault ? [h("span", { class: "warn" }, ` The outline cannot be shown: ${info.mask_fault}.`)] : []));
    this.canvas.setAttribute("aria-label", `${info.modality} ${info.id}: axial, coronal and sagittal plane${info.lesion_mm ? " through the lesion" : ""}`);
  }

  setWindow({ low, high, name }) {
    this.grey = { low, high };
    this.view?.window(low, high);
    for (const one of this.windows.children) one.setAttribute("aria-pressed", String(one.dataset.window === name));
    const unit = this.info.unit ? ` ${this.info.unit}` : "";
    this.reading.textContent = `level ${number((low + high) / 2)}, width ${number(high - low)}${unit}`;
  }

  setDrag(on) {
    this.drag = on;
    this.dragging.setAttribute("aria-pressed", String(on));
  }

  choose(method) {
    this.method = method;
    this.visible.map = true;
    this.state.set({ scanmap: method || "none" });
    this.overlay();
  }

  shown() { return this.visible.map ? this.opacity : 0; }

  fade() {
    this.opacity = Number(this.slider.value) / 100;
    this.faded.textContent = `${this.slider.value} %`;
    this.visible.map = true;
    this.state.set({ scanopacity: this.opacity });
    this.#paint();
  }

  // The legend is as strong as the map, so that its colours are those on the scan.
  #paint() {
    this.view?.opacity(this.shown());
    if (this.paint) this.paint.style.opacity = this.shown();
  }

  toggle(what) {
    this.visible[what] = !this.visible[what];
    if (what === "mask") { this.view?.outline(this.visible.mask); this.outlined.setAttribute("aria-pressed", String(this.visible.mask)); }
    if (what === "map") { this.#paint(); this.faded.textContent = this.visible.map ? `${this.slider.value} %` : "hidden"; }
    if (what === "crosshair") this.view?.crosshair(this.visible.crosshair);
  }

  back() { this.view?.zoom(null); this.view?.lookAt(this.info?.lesion_mm); }

  tell(sentence, fault = false) {
    this.status.textContent = sentence;
    this.stage.dataset.ready = sentence ? "" : "yes";
    this.stage.classList.toggle("none", fault);
    for (const part of [this.tools, this.values, this.legend, this.keys, this.notes]) part.hidden = Boolean(sentence);
  }

  /** Writes beside each plane where it lies, and what the crosshair points at. */
  moved() {
    if (!this.view || !this.info) return;
    const planes = this.view.planes();
    this.labels.replaceChildren(...planes.map((one) => h("span", { class: one.number === this.plane ? "active" : null, style: `left:${one.left + 6}px;top:${one.top + 4}px` },
      `${one.name}  ${one.words}  (${one.slice}/${one.of})`)), ...planes.flatMap(letters), ...planes.filter((one) => one.number === 0).map(bar));
    const [grey, map] = this.view.values();
    const said = [`Crosshair at ${planes.map((one) => one.words).join(", ")}`];
    if (grey !== null && grey !== undefined) said.push(`${number(grey)} ${this.info.unit || "(stored units)"}`);
    if (map !== null && map !== undefined) said.push(`map ${number(map)}`);
    this.values.textContent = said.join(" · ");
  }

  /** Pictures that the run drew, where the browser has no WebGL2. */
  async still() {
    this.tell("This browser has no WebGL2, so the scan cannot be moved through here.", true);
    const draw = async () => {
      const info = await get(`/api/scans/${this.scan.n}`);
      const made = info.maps.filter((map) => map.picture && map.task === this.task);
      this.legend.hidden = false;
      this.legend.replaceChildren(...made.map((map) => h("img", { class: "scan-still", alt: `${METHODS[map.method] ?? map.method} of ${map.task}: three planes through the lesion`,
        src: `/api/scans/${this.scan.n}/maps/${encodeURIComponent(map.method)}/${encodeURIComponent(map.task)}.png` })));
    };
    this.state.on("task", draw);
    this.state.on("scan", draw);
    await draw();
  }

  listen() {
    const { stage } = this;
    const keys = {
      ArrowUp: () => this.view.scroll(this.plane, 1), ArrowDown: () => this.view.scroll(this.plane, -1), ArrowRight: () => this.view.scroll(this.plane, 1), ArrowLeft: () => this.view.scroll(this.plane, -1),
      PageUp: () => this.view.scroll(this.plane, 10), PageDown: () => this.view.scroll(this.plane, -10), "+": () => this.view.zoom(1.25), "=": () => this.view.zoom(1.25), "-": () => this.view.zoom(1 / 1.25),
      o: () => this.toggle("map"), m: () => this.toggle("mask"), c: () => this.toggle("crosshair"), l: () => this.back(),
      1: () => this.activate(0), 2: () => this.activate(1), 3: () => this.activate(2),
    };
    // in the capturing phase: NiiVue's own keys, and its double click that changes the window, stay out
    stage.addEventListener("keydown", (event) => {
      if (event.key === "Tab") return;
      event.stopPropagation();
      const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
      if (altKey || ctrlKey || metaKey || !keys[key]) {
        const onward = new KeyboardEvent("keydown", { key, altKey, ctrlKey, metaKey, shiftKey, bubbles: true, cancelable: true });
        if (!this.element.dispatchEvent(onward)) event.preventDefault(); // for the page around
        return;
      }
      event.preventDefault();
      if (this.view && this.info) keys[key]();
    }, true);
    for (const name of ["keyup", "dblclick"]) stage.addEventListener(name, (event) => event.stopPropagation(), true);
    let from = null;
    const windowing = (event) => event.button === 2 || (this.drag && event.button === 0);
    stage.addEventListener("pointerdown", (event) => {
      const box = stage.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const over = this.view?.planes().find((one) => x >= one.left && x < one.left + one.width && y >= one.top && y < one.top + one.height);
      if (over) this.activate(over.number);
      if (!windowing(event) || !this.grey) return;
      from = { x: event.clientX, y: event.clientY, ...this.grey };
      stage.setPointerCapture(event.pointerId);
    }, true);
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      // right: wider, down: brighter; the height of the picture is one width
      const width = Math.max((from.high - from.low) * 2 ** ((event.clientX - from.x) / 150), 1e-6);
      const level = (from.low + from.high) / 2 - ((from.high - from.low) * (event.clientY - from.y)) / 400;
      this.setWindow({ low: level - width / 2, high: level + width / 2 });
    }, true);
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { from = null; }, true);
    for (const name of ["mousedown", "mousemove", "touchstart", "touchmove"]) {
      stage.addEventListener(name, (event) => { if (from || (name === "mousedown" && windowing(event)) || (this.drag && name === "touchstart")) event.stopPropagation(); }, true);
    }
  }

  activate(plane) { this.plane = plane; this.moved(); }
}

const fill = (select, names, chosen, words = (name) => name) => {
  select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, words(name))));
};

/** R, L, A, P, S, I at the edges of a plane. */
const letters = ({ left, top, width, height, edges }) => [[10, height / 2], [width - 12, height / 2], [width / 2, width < 400 ? 30 : 12], [width / 2, height - 12]].map(([x, y], side) =>
  h("b", { style: `left:${left + x}px;top:${top + y}px` }, edges[side]));

/** A scale bar in the lower left corner of a plane. */
const bar = ({ left, top, width, height, perMm }) => {
  const mm = [100, 50, 20, 10, 5, 2, 1].find((length) => length * perMm <= width / 3) ?? 1;
  return h("i", { style: `left:${left + 8}px;top:${top + height - 24}px;width:${mm * perMm}px` }, `${mm} mm`);
};

const bytes = async (path) => {
  const response = await fetch(path);
  if (response.ok) return response.arrayBuffer();
  let sentence = `the server answered ${response.status}`;
  try { sentence = (await response.json()).fault ?? sentence; } catch { /* no JSON */ }
  throw new Error(sentence);
};
