// A link to what is seen now, to be sent to a colleague who has a token of his own.

import { h } from "./api.js";

const TOLD_MS = 2500;

/** The address of the current view, which never holds the token. */
export function address() {
  const url = new URL(location.href);
  url.searchParams.delete("token");
  return url.href;
}

/** A button that copies the address of the current view. */
export function link(word = "Copy link") {
  const told = h("span", { class: "told", role: "status" });
  const button = h("button", { type: "button", class: "copy-link", title: "Copies the address of this patient, task and place. It holds no token: who opens it needs his own.", click: async () => {
    const here = address();
    try {
      await navigator.clipboard.writeText(here);
      told.replaceChildren(" Copied");
      setTimeout(() => told.replaceChildren(), TOLD_MS);
    } catch { // the browser does not let us: the reader copies by hand
      const field = h("input", { readonly: true, value: here, "aria-label": "the link", size: 40 });
      told.replaceChildren(" ", field);
      field.select();
    }
  } }, word);
  return h("span", { class: "link" }, button, told);
}
