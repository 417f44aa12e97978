// What the colours over a scan mean: the method, the scale with its numbers, and what they may be compared with.

import { h } from "./api.js";

/** Names of the methods as a reader knows them. */
export const METHODS = { gradcam: "Grad-CAM", occlusion: "occlusion" };
const MEANS = {
  gradcam: "Grad-CAM: what the last layer of the network adds to the score at each place; as coarse as that layer.",
  occlusion: "Occlusion: what the score loses where a cube of the scan is hidden.",
};

/** {elements, paint}: the legend of a map whose colours end at +-limit, and the strip that fades with the map. */
export const legend = (method, task, limit) => {
  if (!limit) return { elements: [h("p", { class: "soft" }, `The ${METHODS[method] ?? method} map of ${task.name} is zero everywhere: no place of this scan moves the score.`)], paint: null };
  const marks = [-limit, -limit / 2, 0, limit / 2, limit].map((value) => h("span", {}, number(value)));
  const paint = h("u", {});
  const scale = h("div", { class: "scan-scale" },
    h("span", { class: "lowers" }, "lowers the score"),
    h("div", { class: "scan-bar" }, h("i", {}, paint), h("div", { class: "scan-marks" }, marks)),
    h("span", { class: "raises" }, "raises the score"));
  const words = task.score_words ? ` (${task.score_words})` : "";
  const meant = h("p", {}, h("b", {}, `Score of ${task.name}`), `${words}; the colours end at the map's largest value, so compare numbers, not colours, between maps. `,
    "Only the cube around the lesion was given to the network. The map holds for this patient's other data as they are; with other data it would be another. ",
    h("span", { class: "soft" }, MEANS[method] ?? ""));
  return { elements: [scale, meant], paint };
};

/** A number to three digits, with a true minus and powers of ten below a thousandth. */
export const number = (value) => {
  const size = Math.abs(value);
  const text = size >= 100 ? size.toFixed(0) : String(Number(size.toPrecision(size < 1 ? 2 : 3)));
  const [digits, power] = size < 1e-3 && size > 0 ? size.toExponential(1).split("e-") : [text];
  return (value < 0 ? "−" : "") + digits + (power ? `\u00d710${[...`-${power}`].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}` : "");
};
