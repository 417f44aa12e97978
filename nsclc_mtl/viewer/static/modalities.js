// What each modality adds to a task, and what would be said without it: only combinations that the audit has shown the model.

import { h } from "./api.js";
import { among, decimal, ends, listed, modality, percent, scoreName, standing } from "./words.js";

/** The card of a task's modalities into `element`. */
export function mount(element, task) {
  if (!task.contributions.length && !task.shown.length) {
    element.replaceChildren(h("p", { class: "soft" }, "This run tells nothing of single modalities: train with audit on, and predict again."));
    return;
  }
  const answer = h("output", { class: "answer", "aria-live": "polite" });
  const all = task.shown[0]?.modalities ?? [];
  const chosen = new Set(all);
  const boxes = [];
  const tell = () => answer.replaceChildren(...sentence(task, all, all.filter((name) => chosen.has(name))));
  const reset = h("button", { type: "button", class: "reset", hidden: true, click: () => {
    boxes.forEach((box) => { box.checked = true; chosen.add(box.value); });
    changed();
  } }, "all again");
  const changed = () => { reset.hidden = chosen.size === all.length; tell(); };
  const tick = (event) => { event.target.checked ? chosen.add(event.target.value) : chosen.delete(event.target.value); changed(); };

  const given = task.contributions.length ? task.contributions : all.map((name) => ({ modality: name, value: null, present: true }));
  const most = Math.max(1e-9, ...given.map((one) => Math.abs(one.value ?? 0)));
  const [low, high] = ends(task);
  element.replaceChildren(...[
    task.contributions.length > 0 && h("div", { class: "row head" }, h("span", {}), h("span", { class: "between" }, h("span", {}, `← ${low}`), h("span", {}, `${high} →`)), h("span", { class: "number" }, "")),
    ...given.map((one) => {
      const box = h("input", { type: "checkbox", value: one.modality, checked: true, change: tick });
      const usable = one.present && all.includes(one.modality);
      if (usable) boxes.push(box);
      return h("div", { class: one.present ? "row" : "row absent" },
        usable ? h("label", {}, box, modality(one.modality)) : h("span", { class: "label" }, modality(one.modality)),
        one.present ? diverging(one.value, most) : h("span", { class: "hatched" }, "not available"),
        h("span", { class: "number" }, one.present && one.value !== null ? decimal(one.value, true) : ""));
    }),
    task.shown.length ? h("p", { class: "what-if" }, answer, " ", reset)
      : h("p", { class: "note" }, "Leaving a modality out was not computed for this task."),
    task.base !== null && task.contributions.length > 0 && h("p", { class: "note" },
      `Shapley values of the ${task.score_words}. Without any modality the model says ${decimal(task.base)}; the bars add up from there. They tell what the model uses, not what causes the disease.`),
  ].filter(Boolean));
  if (task.shown.length) tell();
}

/** A bar to the left or right of the middle. */
export function diverging(value, most) {
  const share = 50 * Math.min(1, Math.abs(value ?? 0) / most);
  const place = value < 0 ? `right:50%;width:${share}%` : `left:50%;width:${share}%`;
  return h("span", { class: "diverging" }, h("span", { class: value < 0 ? "fill below" : "fill above", style: place }));
}

/** The score that the audit found for exactly these modalities; undefined where it did not show them. */
export function scoreOf(task, names) {
  const key = [...names].sort().join("\n");
  return task.shown.find((one) => [...one.modalities].sort().join("\n") === key)?.score;
}

function sentence(task, all, kept) {
  const name = scoreName(task), full = task.shown[0].score;
  const left = all.filter((one) => !kept.includes(one)).map(modality);
  const score = scoreOf(task, kept);
  if (!left.length) return [h("span", { class: "hint" }, "Untick a modality to leave it out. "), `With all: ${name} `, h("strong", {}, decimal(full)), `${said(task, full)}.`];
  const without = kept.length ? `Without ${listed(left)}` : "Without any modality";
  if (score === undefined || score === null) return [`${without}: this combination was not computed.`];
  return [`${without}: ${name} ${decimal(full)}${said(task, full)} → `, h("strong", {}, decimal(score)), `${said(task, score)}: ${moved(task, full, score)}.`];
}

// what a score means: the classes it lies between, or the probability where that is the one on the card (not calibrated since)
function said(task, score) {
  if (task.kind !== "binary") return among(task, score);
  const chance = (logit) => 1 / (1 + Math.exp(-logit));
  const shown = task.probabilities[1]?.p ?? -1;
  return Math.abs(chance(task.shown[0].score) - shown) < 0.005 ? ` (${percent(chance(score))})` : "";
}

function moved(task, full, score) {
  const change = score - full;
  if (Math.abs(change) < 0.005) return "no change";
  const [low, high] = ends(task);
  const words = [`${task.classes.length && task.kind !== "multiclass" ? "towards " : ""}${change < 0 ? low : high}`];
  if (task.kind === "binary") {
    const ratio = Math.exp(Math.abs(change));
    words.push(`odds ${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio)} times ${change < 0 ? "lower" : "higher"}`);
  }
  const place = task.position;
  if (place && task.kind !== "binary" && Math.abs(place.own - full) < 1e-3) { // on the scale of the reference patients
    const above = (value) => place.values.filter((one) => one < value).length;
    words.push(above(score) === above(full) ? `still ${standing(task, full)}` : `above ${above(score)} instead of ${above(full)} of ${place.values.length} ${place.others ? "other " : ""}test patients`);
  }
  return words.join(", ");
}

/** The weights that the fusion gave its parts, which say where it looked and not what that changed. */
export function weights(task) {
  if (!task.weights.length) return null;
  return h("div", { class: "weights" },
    h("h3", {}, "Weights of the fusion"),
    h("div", { class: "bars" }, task.weights.map((one) => h("div", { class: "bar-row" },
      h("span", { class: "label" }, modality(one.part)),
      h("span", { class: "track" }, h("span", { class: "fill", style: `width:${100 * Math.min(1, one.weight)}%` })),
      h("span", { class: "number" }, percent(one.weight))))),
    h("p", { class: "note" }, "Where the fusion looked, not what that changed."));
}
