import { h } from "./api.js";

/** The scans of the patient, by name. */
export function mount(element, detail) {
  element.replaceChildren(...detail.scans.map((one) => h("p", {}, `${one.modality} ${one.id}`)));
}
