// Who is in the list and in which order: pure functions of what the server said, so that typing costs a pass over ids.

/** The predictions of a patient that count: of one task, or of all. */
export const counted = (patient, task) => (task ? [patient.tasks[task]] : Object.values(patient.tasks)).filter(Boolean);

/** Whether the model abstains: for the patient as a whole, or for a task that counts. */
export const abstains = (patient, task) => patient.abstains || counted(patient, task).some((one) => one.abstains);

/** Why not to rely on it, but for what is missing, which has a column of its own. */
export const reasons = (patient, task) => [
  ...patient.reasons.filter((reason) => !patient.missing.includes(reason.replace(/^no /, ""))),
  ...counted(patient, task).flatMap((one) => one.reasons)];

/** The lowest confidence; null where none is told. */
export function confidence(patient, task) {
  const told = counted(patient, task).map((one) => one.confidence).filter((value) => value !== null);
  return told.length ? Math.min(...told) : null;
}

/** The last verdicts on a patient: those on the task and on the patient as a whole, or all. */
export const verdicts = (last, patient, task) =>
  Object.entries(last[patient.id] ?? {}).filter(([of]) => !task || of === task || of === "").map(([, verdict]) => verdict);

/** The keys of the order "needs review first", the smaller the earlier. */
export const need = (patient, { task, last }) => [
  abstains(patient, task) || reasons(patient, task).length ? 0 : patient.missing.length ? 1 : 2,
  verdicts(last, patient, task).length ? 1 : 0,
  confidence(patient, task) ?? 0];

const numeric = (text) => (text !== undefined && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text || null);

// what a column is sorted by; null goes last both ways
const KEYS = {
  id: (patient) => patient.id,
  reliance: (patient, { task }) => (abstains(patient, task) ? -1000 : 0) - reasons(patient, task).length,
  missing: (patient) => patient.missing.length,
  pictures: (patient) => patient.slides * 1000 + patient.scans,
  reviews: (patient, { task, last }) => verdicts(last, patient, task).length,
};

/** The value that a column ("id", "cov:age", "task:grade", ...) sorts a patient by. */
export function key(column, patient, view) {
  const [kind, name] = [column.split(":")[0], column.slice(column.indexOf(":") + 1)];
  if (kind === "cov") return numeric(patient.covariates[name]);
  if (kind === "task") return patient.tasks[name]?.rank ?? null;
  return KEYS[kind]?.(patient, view) ?? null;
}

const collator = new Intl.Collator("en", { numeric: true });

/** Negative where a comes before b; numbers before texts, null last whatever the direction. */
export function compared(a, b, down = false) {
  if (a === b) return 0;
  if (a === null || b === null) return a === null ? 1 : -1;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  const order = typeof a === "number" ? a - b : collator.compare(a, b);
  return down ? -order : order;
}

/** All patients in the order of the view: `sort` is a column, "-" before it for downwards, "" for needs review first. */
export function sorted(patients, view) {
  const down = view.sort.startsWith("-"), column = view.sort.replace(/^-/, "");
  const keys = patients.map((patient, index) => [column ? [key(column, patient, view)] : need(patient, view), index]);
  keys.sort(([a, i], [b, j]) => {
    for (let k = 0; k < a.length; k += 1) {
      const order = compared(a[k], b[k], down);
      if (order) return order;
    }
    return i - j;
  });
  return keys.map(([, index]) => patients[index]);
}

const PICTURES = { slides: (one) => one.slides > 0, scans: (one) => one.scans > 0, none: (one) => !one.slides && !one.scans };
const REVIEWS = { open: (said) => !said.length, done: (said) => said.length > 0, disagree: (said) => said.includes("disagree") };

/** Whether a patient passes the filters of the view but for the search. */
export function passes(patient, view) {
  const { task, site, pictures, reviews, last } = view, wanted = view.class;
  if (task && !patient.tasks[task]) return false;
  if (task && wanted === "?" && !abstains(patient, task)) return false;
  if (task && wanted && wanted !== "?" && `=${patient.tasks[task].said}` !== wanted) return false;
  if (site && patient.covariates[view.siteColumn] !== site) return false;
  if (PICTURES[pictures] && !PICTURES[pictures](patient)) return false;
  return !REVIEWS[reviews] || REVIEWS[reviews](verdicts(last, patient, task));
}

/** Patients whose id begins with the text, then those whose id holds it; each in the order that they had. */
export function found(patients, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return patients;
  const at = patients.map((patient) => patient.id.toLowerCase().indexOf(wanted));
  return [...patients.filter((_, k) => at[k] === 0), ...patients.filter((_, k) => at[k] > 0)];
}
