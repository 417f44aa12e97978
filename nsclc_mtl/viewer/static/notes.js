// What readers think of what the model says: a verdict per task, notes, and all that was said before. Nothing is ever erased.

import { get, h, post } from "./api.js";

const VERDICTS = ["agree", "disagree", "unsure"];
const WHOLE = ""; // the task of a review of the patient as a whole
const KEY = "mtl-author";
const SILENT = "the server does not answer. Is mtl serve still running? What you wrote is still here";
let named = ""; // where the browser keeps nothing, the name lives as long as the page

/** Verdicts, notes and the history of a patient into `element`; gives a promise of the first list. */
export function mount(element, detail, state) {
  needed();
  const subjects = [...detail.tasks.map((task) => [task.name, task.name]), [WHOLE, "the patient as a whole"]];
  const told = h("p", { class: "notes-told", role: "status" });
  const past = h("ol", { class: "notes-past" });
  const past_title = h("h3", {}, "Said so far");
  const about = h("select", { id: "notes-about" }, subjects.map(([task, word]) => h("option", { value: task }, word)));
  const text = h("textarea", { id: "notes-text", rows: 2, maxlength: 10000, placeholder: "What you see that the model does not, or why you disagree", keydown: (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); note(); }
  } });
  const counts = new Map(), buttons = new Map();
  const who = author(() => { const then = waiting; waiting = null; return then ? then() : list(); });
  let waiting = null; // what is sent as soon as the reader has given a name

  const row = ([task, word]) => {
    const count = h("span", { class: "notes-count soft" });
    counts.set(task, count);
    const own = VERDICTS.map((verdict) => h("button", { type: "button", "data-verdict": verdict, "aria-label": `${verdict} on ${word}`, "aria-pressed": "false", click: () => {
      const here = about.value === task ? text.value.trim() : ""; // a note on the same task goes with its verdict
      send({ task, verdict, note: here });
    } }, verdict));
    buttons.set(task, own);
    return h("div", { class: "notes-row", role: "group", "aria-label": `your verdict on ${word}`, "data-task": task }, h("span", { class: "notes-task" }, word, " ", count), h("span", { class: "notes-buttons" }, own));
  };

  const note = () => {
    if (text.value.trim()) return send({ task: about.value, verdict: "", note: text.value.trim() });
    text.focus();
    return tell("Not kept: the note is empty.", false);
  };

  async function send(review) {
    if (!who.name()) {
      waiting = () => send(review);
      who.ask();
      return tell("Not kept yet: write your name first, it stands beside every review.", false);
    }
    tell("Keeping …", true);
    try {
      const kept = await post("/api/reviews", { id: detail.id, model: detail.model, author: who.name(), ...review });
      if (review.note) text.value = "";
      await list();
      tell(`Kept ${clock(kept.time)}.`, true);
    } catch (fault) {
      tell(`Not kept: ${reason(fault)}.`, false);
    }
  }

  const tell = (sentence, well) => {
    told.className = well ? "notes-told" : "notes-told warn";
    told.textContent = sentence;
  };

  async function list() {
    const { reviews } = await get("/api/reviews", { id: detail.id });
    past_title.textContent = reviews.length ? `Said so far (${reviews.length})` : "Nothing was said so far";
    past.replaceChildren(...reviews.toReversed().map((one) => entry(one, detail)));
    for (const [task] of subjects) show(task, latest(reviews, task, detail.model));
  }

  function show(task, last) {
    const all = [...last.values()];
    counts.get(task).textContent = VERDICTS.map((verdict) => [all.filter((one) => one === verdict).length, verdict])
      .filter(([count]) => count).map(([count, verdict]) => `${count} ${verdict}`).join(" · ");
    const own = last.get(who.name());
    buttons.get(task).forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === own)));
  }

  const follow = (task) => { if (!text.value && subjects.some(([name]) => name === task)) about.value = task; };
  state.on("task", (task) => { if (about.isConnected) follow(task); });
  follow(state.task);
  addEventListener("beforeunload", (event) => { if (text.isConnected && text.value.trim()) event.preventDefault(); });

  element.replaceChildren(h("section", { class: "notes", "aria-label": "what readers think" },
    h("h2", {}, "Your reading"), who.element,
    h("div", { class: "notes-rows" }, subjects.map(row)),
    h("div", { class: "notes-write" },
      h("label", { for: "notes-about" }, "Note on "), about, h("label", { for: "notes-text", class: "notes-hidden" }, "the note"), text,
      h("button", { type: "button", class: "notes-keep", click: note, title: "Ctrl+Enter" }, "Keep note")),
    told, past_title, past,
    h("p", { class: "soft notes-foot" }, "Kept in the run's folder, and never erased: a later verdict stands beside the earlier one. ",
      h("a", { href: "/api/reviews.csv", download: true }, "All reviews (CSV)"))));
  return list().catch((fault) => tell(`Earlier reviews cannot be shown: ${reason(fault)}.`, false));
}

/** The last verdict of each author on a task under one model. */
export function latest(reviews, task, model) {
  const last = new Map();
  for (const one of reviews) if (one.verdict && one.task === task && one.model === model) last.set(one.author, one.verdict);
  return last;
}

function entry(one, detail) {
  const others = detail.models.length > 1 || one.model !== detail.model;
  return h("li", {},
    h("p", { class: "notes-line" },
      h("time", { datetime: one.time }, when(one.time)), " ", h("strong", {}, h("bdi", {}, one.author)), one.verdict ? ": " : "",
      one.verdict && h("span", { class: `notes-verdict ${one.verdict}` }, one.verdict), " on ", one.task || "the patient as a whole",
      others && h("span", { class: "soft" }, ` (${one.model})`)),
    one.note && h("p", { class: "notes-note", dir: "auto" }, one.note));
}

/** The reader's name: asked once, remembered by the browser. */
function author(done) {
  const field = h("input", { id: "notes-author", maxlength: 200, autocomplete: "name", placeholder: "e.g. Dr. A. Meyer", keydown: (event) => { if (event.key === "Enter") { event.preventDefault(); keep(); } } });
  const form = h("span", {}, h("label", { for: "notes-author" }, "Your name "), field, " ", h("button", { type: "button", click: () => keep() }, "Keep name"));
  const as = h("bdi", {});
  const change = h("button", { type: "button", class: "notes-small", click: () => ask() }, "change");
  const known = h("span", {}, "as ", h("strong", {}, as), " ", change);
  let from = null; // where the reader was when he was asked
  const show = (open) => { form.hidden = !open; known.hidden = open; as.textContent = name(); };
  const keep = () => {
    const given = field.value.trim();
    if (!given) return field.focus();
    named = given;
    try { localStorage.setItem(KEY, given); } catch { /* private windows keep nothing */ }
    show(false);
    (from?.isConnected ? from : change).focus();
    return done();
  };
  const ask = () => { from = document.activeElement; field.value = name(); show(true); field.focus(); };
  show(!name());
  return { element: h("p", { class: "notes-who" }, form, known), name, ask };
}

function name() {
  try { return localStorage.getItem(KEY) || named; } catch { return named; }
}

const reason = (fault) => (fault instanceof TypeError ? SILENT : fault.message.replace(/\.$/, ""));
const clock = (time) => new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
const when = (time) => {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? time : `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })} ${clock(time)}`;
};

function needed() {
  if (!document.querySelector('link[href="/static/notes.css"]')) document.head.append(h("link", { rel: "stylesheet", href: "/static/notes.css" }));
}
