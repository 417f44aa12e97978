// The clinical, omics and image features that move a task most, with the patient's own values.

import { h } from "./api.js";
import { diverging } from "./modalities.js";
import { decimal, ends, modality, scoreName, short } from "./words.js";

/** Elements: a table of the strongest features of a task; a sentence where the run explained none. */
export function features(task, detail) {
  if (!task.features.length) {
    const first = detail.models[0];
    const why = detail.model === first ? "mtl predict explained no features of this patient (explain.patients)" : `features are explained by ${first} only`;
    return [h("p", { class: "soft" }, `None to show: ${why}.`)];
  }
  const most = Math.max(1e-9, ...task.features.map((one) => Math.abs(one.attribution ?? 0)));
  const [low, high] = ends(task);
  const table = h("table", { class: "features" },
    h("thead", {}, h("tr", {}, h("th", {}, "feature"), h("th", { class: "value" }, "value"),
      h("th", { class: "moves" }, h("span", { class: "between" }, h("span", {}, `← ${low}`), h("span", {}, `${high} →`))))),
    h("tbody", {}, task.features.map((one) => h("tr", {},
      h("td", { title: `${modality(one.modality)}: ${one.feature}` }, h("span", { class: "feature" }, broken(one.feature.replace(/^original_/, ""))), h("span", { class: "from" }, modality(one.modality))),
      h("td", { class: "value" }, short(one.value)),
      h("td", { class: "moves", title: short(one.attribution) }, diverging(one.attribution, most))))));
  return [table, h("p", { class: "note" }, `Integrated gradients: how far a value moves the ${scoreName(task)}, against the mean training patient; the longest bar is ${decimal(most)}.`)];
}

// names like glcm_ClusterProminence may break at their parts
const broken = (name) => name.split(/(?<=[_.:-])|(?<=[a-z])(?=[A-Z])/).flatMap((part, k) => (k ? [h("wbr"), part] : [part]));
