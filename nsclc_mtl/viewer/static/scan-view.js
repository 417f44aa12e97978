// Three planes of a scan on one canvas: NiiVue with the window, outline and map that a radiologist expects.

import { cmapper, MULTIPLANAR_TYPE, Niivue, NVImage, SHOW_RENDER } from "./vendor/niivue.js";

/** Name, axis of RAS space and letters of its two ends, by NiiVue's number of a plane. */
export const PLANES = [
  { name: "axial", axis: 2, ends: ["I", "S"] },
  { name: "coronal", axis: 1, ends: ["P", "A"] },
  { name: "sagittal", axis: 0, ends: ["L", "R"] },
];

// Letters at the left, right, upper and lower edge, by NiiVue's number of a plane: radiological, nose to the left.
const EDGES = ["RLAP", "RLSI", "APSI"];

// Blue lowers, orange raises; what says nothing hides nothing. The legend in scan.css has the same colours.
const SIGNED = {
  I: [0, 64, 96, 128, 160, 192, 255],
  R: [0, 60, 110, 128, 240, 255, 255],
  G: [110, 150, 180, 128, 180, 150, 120],
  B: [255, 255, 255, 128, 110, 50, 0],
  A: [255, 157, 97, 0, 97, 157, 255],
};
const DARK_ON_WHITE = { I: [0, 255], R: [255, 0], G: [255, 0], B: [255, 0], A: [0, 255] };
const outline = (r, g, b) => ({ R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 1] });
const [OUTLINE, OUTLINE_ON_WHITE] = [outline(190, 255, 60), outline(190, 0, 140)];
const BARELY = 0.004; // opacity of the lesion's inside: NiiVue looks for a rim only where something is drawn

/** What a browser without WebGL2 cannot do. */
export const drawable = () => Boolean(document.createElement("canvas").getContext("webgl2"));

export class View {
  /** The view on a canvas; `changed` is called after every move. */
  static async on(canvas, changed) {
    const view = new View();
    const nv = new Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, isOrientationTextVisible: false,
      multiplanarShowRender: SHOW_RENDER.NEVER, multiplanarLayout: MULTIPLANAR_TYPE.ROW, multiplanarPadPixels: 4,
      dragAndDropEnabled: false, drawingEnabled: false, isColorbar: false, loadingText: "", logLevel: "error",
      crosshairColor: [0.1, 0.72, 0.8, 1], crosshairWidthUnit: "mm", crosshairGap: 16, backColor: [0, 0, 0, 1], viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
    });
    nv.addColormap("signed", SIGNED);
    nv.addColormap("dark-on-white", DARK_ON_WHITE);
    nv.onLocationChange = changed;
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = () => (canvas.clientWidth && canvas.clientHeight ? draw() : ""); // a hidden canvas has no room to draw in
    await nv.attachToCanvas(canvas);
    nv.setDrawOpacity(BARELY);
    nv.drawRimOpacity = 1;
    Object.assign(view, { nv, canvas, changed, map: null, lines: true });
    view.#lineAboveMap();
    return view;
  }

  /** Shows the voxels of a gzipped NIfTI in a window, with the lesion's outline where there is one. */
  async load(image, lesion, { low, high, darkOnWhite }) {
    const { nv } = this;
    nv.closeDrawing();
    for (const one of [...nv.volumes].reverse()) nv.removeVolume(one);
    this.map = null;
    nv.drawLut = cmapper.makeDrawLut(darkOnWhite ? OUTLINE_ON_WHITE : OUTLINE); // sent to the card with the volume
    const colormap = darkOnWhite ? "dark-on-white" : "gray";
    nv.addVolume(await NVImage.loadFromUrl({ url: "scan", name: "scan.nii.gz", buffer: image, colormap, cal_min: low, cal_max: high }));
    nv.setPan2Dxyzmm([0, 0, 0, 1]);
    if (lesion) nv.loadDrawing(await NVImage.loadFromUrl({ url: "lesion", name: "lesion.nii.gz", buffer: lesion }));
    this.changed();
  }

  /** Lays a signed map over the scan, or none; the largest strength in it, whatever its sign. */
  async lay(buffer, opacity) {
    const { nv } = this;
    if (this.map) nv.removeVolume(this.map);
    this.map = null;
    if (!buffer) return 0;
    const map = await NVImage.loadFromUrl({ url: "map", name: "map.nii.gz", buffer, colormap: "signed", opacity });
    let limit = 0;
    for (const value of map.img) limit = Math.max(limit, Math.abs(value) || 0);
    map.cal_min = -(limit || 1);
    map.cal_max = limit || 1;
    nv.addVolume(map);
    this.map = map;
    return limit;
  }

  /** How far the map covers the scan, 0 to 1. */
  opacity(value) {
    if (this.map) this.nv.setOpacity(this.nv.volumes.indexOf(this.map), value);
  }

  /** Grey values from black to white. */
  window(low, high) {
    const [scan] = this.nv.volumes;
    if (!scan || (scan.cal_min === low && scan.cal_max === high)) return;
    scan.cal_min = low;
    scan.cal_max = high;
    this.nv.updateGLVolume();
  }

  /** Shows or hides the line around the lesion. */
  outline(visible) {
    this.nv.setDrawOpacity(visible ? BARELY : 0);
  }

  /** Shows or hides the lines through the point looked at. */
  crosshair(visible) {
    this.lines = visible;
    this.#thin();
  }

  /** Side by side, or as large as a narrow page allows. */
  layout(wide) {
    this.nv.setMultiplanarLayout(wide ? MULTIPLANAR_TYPE.ROW : MULTIPLANAR_TYPE.GRID);
    this.#thin();
  }

  /** Moves a plane by slices. */
  scroll(plane, slices) {
    const step = [0, 0, 0];
    step[PLANES[plane].axis] = slices;
    this.nv.moveCrosshairInVox(...step);
  }

  /** Brings a point (mm, RAS+) into all planes. */
  lookAt(mm) {
    const { nv } = this;
    nv.scene.crosshairPos = mm ? nv.mm2frac(mm, 0, true) : [0.5, 0.5, 0.5];
    nv.createOnLocationChange();
    this.#thin();
  }

  /** Enlarges about the crosshair; null: the whole scan. */
  zoom(factor) {
    const { nv } = this;
    const [x, y, z, before] = nv.scene.pan2Dxyzmm;
    const after = factor === null ? 1 : Math.min(12, Math.max(1, before * factor));
    const at = nv.frac2mm(nv.scene.crosshairPos);
    const moved = [x, y, z].map((pan, axis) => (after === 1 ? 0 : pan + (before - after) * at[axis]));
    nv.setPan2Dxyzmm([...moved, after]);
    this.#thin();
    this.changed();
  }

  /** Where each plane lies on the canvas (CSS px), and which slice it shows. */
  planes() {
    const { nv, canvas } = this;
    if (!nv.volumes.length) return [];
    const mm = nv.frac2mm(nv.scene.crosshairPos, 0, true);
    const voxel = nv.frac2vox(nv.scene.crosshairPos);
    const scale = canvas.clientWidth / canvas.width;
    const [back] = nv.volumes;
    return nv.screenSlices.filter((slice) => slice.axCorSag in PLANES).map((slice) => {
      const plane = PLANES[slice.axCorSag];
      const [left, top, width, height] = slice.leftTopWidthHeight.map((v) => v * scale);
      const at = mm[plane.axis];
      const across = slice.axCorSag === 2 ? 2 : 1;
      return {
        number: slice.axCorSag, name: plane.name, left, top, width, height, edges: EDGES[slice.axCorSag],
        perMm: (width / (back.dimsRAS[across] * back.pixDimsRAS[across])) * nv.scene.pan2Dxyzmm[3], // px
        words: `${plane.ends[at < 0 ? 0 : 1]} ${Math.abs(at).toFixed(1)} mm`,
        slice: Math.round(voxel[plane.axis]) + 1, of: back.dimsRAS[plane.axis + 1],
      };
    });
  }

  /** Values of the scan and of the map under the crosshair. */
  values() {
    const { nv } = this;
    const mm = nv.frac2mm(nv.scene.crosshairPos, 0, true);
    return nv.volumes.map((volume) => {
      const [x, y, z] = volume.mm2vox(mm);
      const [, nx, ny, nz] = volume.hdr.dims;
      const inside = [[x, nx], [y, ny], [z, nz]].every(([v, n]) => Math.round(v) >= 0 && Math.round(v) < n);
      return inside ? volume.getValue(Math.round(x), Math.round(y), Math.round(z)) : null;
    });
  }

  // NiiVue's lines are as thick as a voxel; these keep their width in pixels, and a gap at the point looked at.
  #thin() {
    const { nv } = this;
    const axial = this.planes().find((one) => one.number === 0);
    if (!axial?.width) return;
    nv.setCrosshairWidth(this.lines ? 1.6 / axial.perMm : 0);
  }

  // NiiVue draws the rim one pixel wide and below the map: it is made wider, and the map steps aside for it.
  // Where another version words its shader otherwise, its own rim stays.
  #lineAboveMap() {
    const { gl } = this.nv;
    const shaders = gl.getAttachedShaders(this.nv.sliceMMShader.program) ?? [];
    const source = shaders.map((one) => gl.getShaderSource(one)).find((text) => text.includes("dcolor.a = drawRimOpacity;"));
    if (!source) return;
    this.nv.setCustomSliceShader(source
      .replace("offsetX = dFdx(texPos);", "offsetX = 1.6 * dFdx(texPos);")
      .replace("offsetY = dFdy(texPos);", "offsetY = 1.6 * dFdy(texPos);")
      .replace("dcolor.a = drawRimOpacity;", "{ dcolor.a = drawRimOpacity; ocolor.a = 0.0; }"));
  }
}
