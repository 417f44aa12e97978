// What can be kept of a patient, and how to get what is not there.

import { h } from "./api.js";

/** The list of the exports: links that download, and the missing ones with the way to them. */
export function exports(detail) {
  const there = detail.exports.filter((one) => one.url), missing = detail.exports.filter((one) => !one.url);
  return h("div", { class: "exports" },
    h("ul", {}, there.map((one) => h("li", {}, h("a", { href: one.url, download: true }, one.name)))),
    missing.length > 0 && h("p", { class: "note soft" },
      "Not there for this patient: ", missing.map((one) => one.name).join(", "), ". ", ...ways(missing)));
}

/** Commands between back-ticks stand as code. */
function ways(missing) {
  return [...new Set(missing.map((one) => one.why))].map((why) =>
    [...`To have it: ${why}. `.split("`").map((part, k) => (k % 2 ? h("code", {}, part) : part))]).flat();
}
