// Numbers and names as a reader says them.

const SPOKEN = { wsi: "slide", ct: "CT", mr: "MR", pet: "PET", rna: "RNA", dna: "DNA", cnv: "CNV" };

/** A modality's name in plain words: ct_volume is "CT volume". */
export const modality = (name) => name.split("_").map((part) => SPOKEN[part] ?? part).join(" ");

/** "a, b and c". */
export const listed = (names, word = "and") =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${word} ${names.at(-1)}`;

/** A text of the run with its names of modalities in plain words. */
export const spoken = (text, names) =>
  names.reduce((told, name) => told.split(new RegExp(`\\b${name.replace(/\W/g, "\\$&")}\\b`)).join(modality(name)), text);

/** A probability in per cent, never as a certainty: "66 %", "< 1 %", "> 99 %", "–" where there is none. */
export const percent = (p) => {
  if (p === null || p === undefined) return "–";
  if (p < 0.01) return "< 1 %";
  return p > 0.99 ? "> 99 %" : `${Math.round(p * 100)} %`;
};

/** A number with a true minus sign and three significant digits at most; texts stay as they are. */
export const short = (value) => {
  if (value === null || value === undefined || value === "") return "–";
  const number = Number(value);
  if (!Number.isFinite(number)) return String(value);
  const size = Math.abs(number);
  const text = size >= 1e5 || (size > 0 && size < 1e-3) ? number.toExponential(1) : String(Number(number.toPrecision(size >= 1000 ? 5 : 3)));
  return text.replace("-", "−");
};

/** A score or contribution with two decimals and a true minus sign; `sign`: also a plus. */
export const decimal = (value, sign = false) => {
  const text = value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
  return sign && value > 0 && text !== "0.00" ? `+${text}` : text;
};

/** Days as years where there are many: "1,043 days (2.9 years)". */
export const days = (count) =>
  count < 365 ? `${Math.round(count)} days` : `${Math.round(count).toLocaleString("en")} days (${(count / 365.25).toFixed(1)} years)`;

/** What the score of a task is, without the explanation behind it: "expected class", "risk score". */
export const scoreName = (task) => task.score_words.split(/ \(|, /)[0];

/** What a lower and a higher score stand for: [below, above]. */
export const ends = (task) => {
  if (task.kind === "survival") return ["lower risk", "higher risk"];
  if (task.kind === "ordinal" || task.kind === "binary") return [task.classes[0], task.classes.at(-1)];
  return task.kind === "multiclass" ? [`against ${task.said}`, `for ${task.said}`] : ["lower", "higher"];
};

/** Where a value stands among the reference patients of a task, himself left out: "above 3 of 16 test patients", "below all 16 test patients". */
export const standing = (task, own) => {
  const { values, others } = task.position, of = `${values.length} ${others ? "other " : ""}test patients`;
  const below = values.filter((value) => value < own).length, above = values.filter((value) => value > own).length;
  const sure = task.kind === "multiclass";
  if (below === values.length || above === values.length) return `${below ? (sure ? "surer than" : "above") : sure ? "less sure than" : "below"} all ${of}`;
  return `${sure ? "surer than" : "above"} ${below} of ${of}`;
};

/** Where a score lies among ordered classes, in words: 1.57 is "G2 to G3", 1.04 is "G2"; "" for other tasks. */
export const among = (task, score) => {
  if (task.kind !== "ordinal") return "";
  const at = Math.min(Math.max(score, 0), task.classes.length - 1), near = Math.round(at);
  return Math.abs(at - near) <= 0.1 ? ` (${task.classes[near]})` : ` (${task.classes[Math.floor(at)]} to ${task.classes[Math.ceil(at)]})`;
};
