import { h } from "./api.js";

/** The slides of the patient, as thumbnails. */
export function mount(element, detail) {
  element.replaceChildren(...detail.slides.map((one) => h("img", { src: `/api/slides/${one.n}/thumbnail.jpg`, alt: one.id })));
}
