// What a page changes while it is printed: folds open, and the pictures shrink to the paper as a whole.

const PAPER = 700; // px of width between the margins of A4
const STAGES = ".slide-stage, .scan-stage:not(.none)";
const HIGH = 330; // px of height that a picture may take of it, so that the legends and tasks follow on the same page

/** Opens every fold and fits the slide and scan to the paper while the page is printed. */
export function printing() {
  let undo = [];
  addEventListener("beforeprint", () => {
    const folds = [...document.querySelectorAll("details:not([open])")];
    folds.forEach((one) => { one.open = true; });
    const stages = [...document.querySelectorAll(STAGES)].filter((one) => one.clientWidth > 0);
    const sizes = stages.map((one) => [one.offsetWidth, one.offsetHeight]);
    stages.forEach((one, k) => fitted(one, ...sizes[k], PAPER / stages.length - 16));
    undo = [...folds.map((one) => () => { one.open = false; }), ...stages.map((one) => () => one.removeAttribute("style"))];
  });
  addEventListener("afterprint", () => { undo.forEach((back) => back()); undo = []; });
}

// The stage keeps its size and is drawn smaller: scale bar, map, and the letters of left and right stay where they belong.
function fitted(stage, width, height, room) {
  const share = Math.min(1, room / width, HIGH / height);
  Object.assign(stage.style, {
    width: `${width}px`, height: `${height}px`, minHeight: "0", flex: "none", transform: `scale(${share})`, transformOrigin: "0 0",
    marginRight: `${-(1 - share) * width}px`, marginBottom: `${-(1 - share) * height}px`,
  });
}
