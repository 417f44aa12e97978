// Two patients, or one patient under two models: the same facts side by side, and how they differ in words.

import { get, h } from "./api.js";
import { contributions, curves, legend, probabilities, strips } from "./compare_draw.js";
import { link } from "./link.js";
import { days, listed, modality, percent, short, spoken } from "./words.js";

const place = (id) => document.getElementById(id);

/** [A, B] in words: by patient, by model where the patient is the same. */
export const sides = (a, b) => (a.id !== b.id ? [a.id, b.id] : a.model !== b.model ? [a.model, b.model] : ["A", "B"]);

function picker() {
  const form = place("choose");
  const swap = (name, other) => {
    const [one, two] = [form.elements.namedItem(name), form.elements.namedItem(other)];
    if (one && two) [one.value, two.value] = [two.value, one.value];
  };
  place("swap").addEventListener("click", () => {
    swap("a", "b");
    swap("model_a", "model_b");
    if (form.reportValidity()) form.submit();
  });
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", () => { if (form.checkValidity()) form.submit(); });
  form.querySelector(".acts").append(link());
}

function head(detail, letter) {
  const names = [...detail.present, ...detail.missing];
  const facts = Object.entries(detail.covariates).map(([name, text]) => h("span", { class: "fact" }, h("span", { class: "soft" }, `${name} `), text));
  const missing = detail.missing.length > 0 && `Without ${listed(detail.missing.map(modality))}`;
  const others = detail.reasons.filter((reason) => !detail.missing.includes(reason.replace(/^no /, ""))).map((reason) => spoken(reason, names));
  const reasons = [...others, missing].filter(Boolean);
  return h("div", { class: `head side-${letter}` },
    h("h2", {}, h("span", { class: "letter" }, letter.toUpperCase()), " ", h("a", { href: page(detail) }, detail.id)),
    h("p", { class: "soft" }, `model ${detail.model}`),
    h("p", { class: "facts" }, facts),
    reasons.length > 0 && h("div", { class: detail.abstains ? "caution strong" : "caution" },
      h("strong", {}, detail.abstains ? "Do not rely on the model here. " : "Read with caution. "), `${reasons.join("; ")}.`));
}

const page = (detail, more = {}) => `/patient?${new URLSearchParams({ id: detail.id, model: detail.model, ...more })}`;

/** The sentences of the server, in which modalities have the names of the run. */
const words = (sentences, names) => h("ul", { class: "words" }, sentences.map((one) => h("li", {}, spoken(one, names))));

function card(name, told, a, b, names) {
  const both = [a, b].map((detail) => detail.tasks.find((task) => task.name === name) ?? null);
  const task = both.find(Boolean);
  const grey = (k) => (both[k] && (both[k].abstains || [a, b][k].abstains) ? " greyed" : "");
  const each = (draw) => both.map((one, k) => h("div", { class: `half side-${"ab"[k]}${grey(k)}` }, one ? draw(one, k) : h("p", { class: "soft" }, "no prediction")));
  return h("article", { class: "task", "data-task": name },
    h("h2", {}, name, task.endpoint ? h("span", { class: "soft" }, ` (${task.endpoint})`) : ""),
    words(told, names),
    h("div", { class: "halves" }, each((one, k) => [
      h("p", { class: "said" }, h("span", { class: "letter" }, "AB"[k]), " ", h("strong", {}, said(one)), one.confidence === null ? "" : ` ${percent(one.confidence)}`, " ", outcome(one)),
      h("p", { class: "set" }, remaining(one)),
      one.reasons.length > 0 && h("ul", { class: "reasons" }, one.reasons.map((reason) => h("li", {}, spoken(reason, names)))),
    ])),
    h("div", { class: "pictures" },
      task.kind === "survival" ? curves(both) : task.kind === "regression" ? null : probabilities(both),
      strips(both, sides(a, b))),
    contributions(both));
}

function said(task) {
  if (task.kind === "regression") return task.value === null ? "–" : `${short(task.value)} ${task.unit}`;
  if (task.kind !== "survival") return task.said ?? "–";
  const until = task.horizon_days ? ` ${task.said === "event" ? "before" : "beyond"} ${(task.horizon_days / 365.25).toFixed(1)} years` : "";
  return task.said ? `${task.said}${until}` : "risk only";
}

function remaining(task) {
  const level = task.set_level === null ? "" : ` (right in ${task.sets ? "at least " : ""}${Math.round(task.set_level * 100)} of 100)`;
  if (task.kind === "survival") {
    const bound = task.lower_bound_days === null ? null : `event-free for at least ${days(task.lower_bound_days)}${level}`;
    return [task.group && `${task.group} group`, bound].filter(Boolean).join("; ");
  }
  if (task.kind === "regression") return task.interval ? `between ${short(task.interval[0])} and ${short(task.interval[1])}${level}` : "";
  if (!task.set) return "no prediction set";
  return task.set.length ? `Prediction set${level}: ${listed(task.set, "or")}` : `Prediction set${level}: empty`;
}

// the reader judges first, and looks at the truth afterwards
function outcome(task) {
  if (task.known === null) return h("span", { class: "soft outcome" }, "outcome unknown");
  const button = h("button", { type: "button", class: "outcome", click: () => button.replaceWith(h("strong", { class: "outcome shown", tabindex: "-1" }, `outcome: ${task.known}`)) }, "show outcome");
  return button;
}

/** The slides of both, each a link to its viewer. */
function slides(a, b) {
  if (!a.slides.length && !b.slides.length) return null;
  const of = (detail, letter) => h("div", { class: `half side-${letter}` }, detail.slides.length
    ? detail.slides.map((slide) => h("a", { class: "slide", href: page(detail, { pane: "slides", slide: slide.n }) },
      h("img", { src: `/api/slides/${slide.n}/thumbnail.jpg`, alt: `slide ${slide.id}` }), h("span", {}, slide.id)))
    : h("p", { class: "soft" }, "no slide"));
  return h("article", { class: "task" }, h("h2", {}, "Slides"), h("div", { class: "halves" }, of(a, "a"), of(b, "b")));
}

async function start() {
  picker();
  const root = place("compare");
  if (!root) return;
  const { a, b, modelA, modelB } = root.dataset;
  try {
    const both = await get("/api/compare", { a, b, model_a: modelA, model_b: modelB });
    const names = [...both.a.present, ...both.a.missing, ...both.b.present, ...both.b.missing];
    root.replaceChildren(...[
      h("div", { class: "halves heads" }, head(both.a, "a"), head(both.b, "b")),
      both.words.length > 0 && words(both.words, names),
      legend(sides(both.a, both.b)),
      slides(both.a, both.b),
      ...both.tasks.map((task) => card(task.name, task.words, both.a, both.b, names)),
    ].filter(Boolean));
  } catch (fault) {
    root.replaceChildren(h("p", { class: "warn", role: "alert" }, fault.message));
  }
  root.removeAttribute("aria-busy");
}

await start();
