"""How far each prediction may be relied on, and in plain words why not: `trust.csv`, and columns of `patients.csv`.

`trust.csv` is long: patient_id, fold, task, what, value. Rows without a patient tell what a fold was given (members,
calibration patients); rows without a task are about the patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import confidence, members_said, outside
from nsclc_mtl.records import Manifest, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.learner import Learner

FILE = "trust.csv"
COLUMNS = ("patient_id", "fold", "task", "what", "value")
DISAGREE = 0.15  # of probability that members move on average: more is a reason for caution


@dataclass
class Seen:
    """What a fold says of some patients: its outputs, those of each member, and how far out the patients lie."""

    outputs: dict[str, pd.DataFrame]
    members: list[dict[str, pd.DataFrame]]
    outside: pd.DataFrame
    fitted: Any
    dropped: bool = False  # the members are passes with dropout
    trust: Mapping[str, Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.trust = self.fitted.trust


def asked(settings: Mapping[str, Any]) -> dict[str, int]:
    """Passes with dropout and their seed, as the settings of a run (also of before) say them."""
    return {"passes": int((settings.get("trust") or {}).get("mc_dropout") or 0), "seed": int(settings["seed"])}


def limit(settings: Mapping[str, Any]) -> float:
    """Probability that members may move on average before a reason is given."""
    said = (settings.get("trust") or {}).get("disagree")
    return DISAGREE if said is None else float(said)


def look(
    members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any, passes: int = 0, seed: int = 0
) -> Seen:
    """What a fold says of these patients; its outputs are those of `outputs.predict`."""
    from nsclc_mtl.commands.outputs import apart, populations
    from nsclc_mtl.trust.ensemble import dropping

    with dropping(members[0]) as layers:
        passes = passes if layers else 0  # without dropout all passes would agree, and that would say nothing
    mean, each = apart(members, manifest, ids, data, passes, seed)
    fitted, stated = data.fitted, populations(members)
    told = [confidence.scaled(outputs, manifest, fitted.trust, stated) for outputs in (mean, *each)]
    far = outside.judge(fitted.outside, members[0], manifest, ids, data)
    return Seen(told[0], told[1:], far, fitted, passes > 0)


def rows(seen: Sequence[Seen], manifest: Manifest, fold: int, disagree: float = DISAGREE) -> pd.DataFrame:
    """Rows of `trust.csv` for the patients of one or more folds that predict the same ones, as fold `fold`."""
    import pandas as pd

    ids = next(iter(seen[0].outputs.values())).index
    mean: dict[str, Any] = {task: sum(s.outputs[task] for s in seen) / len(seen) for task in seen[0].outputs}
    members = [member for s in seen for member in s.members]
    made = _Rows(fold)
    several = confidence.sets([(s.outputs, s.trust) for s in seen], manifest)
    words = "passes with dropout" if seen[0].dropped else "members" if len(seen) == 1 else "members of the folds"
    for task, wide in mean.items():
        spec = manifest.tasks[task]
        of = members_said.horizon([s.trust.get(task, {}) for s in seen])
        facts = {"members": len(members), "horizon_days": of.get("horizon_days") if spec.kind == "survival" else None}
        calibrated = [s.trust.get(task, {}) for s in seen]
        if all("n" in one for one in calibrated):
            facts |= {"n_calibration": min(one["n"] for one in calibrated), "miss": calibrated[0]["miss"]}
        for what, value in facts.items():
            if value is not None:
                made.add([""], task, what, [value])
        if len(seen) == 1:
            if of_classes := calibrated[0].get("recalibration"):
                made.add([""], task, "slope", [float(of_classes["slope"])])
            for name, group in calibrated[0].get("groups", {}).items():
                made.add([""], task, f"n_calibration:{calibrated[0]['mondrian']}:{name}", [group["n"]])
        said, sure = members_said.said(spec, wide, of)
        made.add(ids, task, "predicted", said)
        made.add(ids, task, "confidence", sure)
        if len(members) > 1:
            for what, value in members_said.spread(spec, [m[task] for m in members], of).items():
                made.add(ids, task, what, value)
                if what == "distance":
                    agree = members_said.disagreement(spec, [m[task] for m in members], of)
                    apart = value > disagree
                    made.add(ids, task, "flag:disagree", apart.astype(int))
                    made.reason(ids, task, apart, [f"{task}: the {words} {more}" for more in agree])
        if f"set:{task}" in several:
            _of_set(made, spec, several[f"set:{task}"])
            if len(seen) > 1:  # the promise of a vote is weaker than that of one (`conformal.promised`)
                made.add(ids, task, "sets", [len(seen)] * len(ids))
    _patients(made, seen, manifest, ids)
    return pd.concat(made.tables, ignore_index=True)[list(COLUMNS)] if made.tables else pd.DataFrame(columns=COLUMNS)


class _Rows:
    """Tables of rows in the making."""

    def __init__(self, fold: int) -> None:
        self.fold, self.tables = fold, list[Any]()

    def add(self, ids: Any, task: str, what: str, values: Any) -> None:
        import pandas as pd

        told = ["" if pd.isna(v) else f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
        self.tables.append(
            pd.DataFrame({"patient_id": list(ids), "fold": self.fold, "task": task, "what": what, "value": told})
        )

    def reason(self, ids: Any, task: str, holds: Any, sentences: Sequence[str]) -> None:
        some = [(p, s) for p, h, s in zip(ids, holds, sentences, strict=True) if h]
        if some:
            self.add([p for p, _ in some], task, "reason", [s for _, s in some])


def _of_set(made: _Rows, spec: TaskSpec, words: pd.Series) -> None:
    """The set, interval or bound of each patient, and a reason where a set leaves several classes."""
    ids, task = words.index, spec.name
    made.add(ids, task, "set", words)
    if spec.kind == "survival":
        made.add(ids, task, "lower_bound_days", words.str.split().str[0])
    elif spec.kind == "regression":
        for what, end in (("interval_low", 0), ("interval_high", 2)):
            made.add(ids, task, what, words.str.split().str[end])
    else:
        size = words.str.count(r"\|") + (words != "")
        made.add(ids, task, "set_size", size)
        made.add(ids, task, "flag:several", (size > 1).astype(int))
        told = [f"{task}: {' or '.join(w.split('|'))}, the set does not decide" for w in words]
        made.reason(ids, task, size > 1, told)
        made.reason(ids, task, size == 0, [f"{task}: the folds agree on no class"] * len(words))


def _patients(made: _Rows, seen: Sequence[Seen], manifest: Manifest, ids: Any) -> None:
    """What holds of the patient for every task: modalities that are missing, places and looks that training lacks."""
    import pandas as pd

    from nsclc_mtl.tables.harmonize import named_sites

    names = list(seen[0].fitted.dims())
    have = {name: set(manifest.who(name)) for name in names}
    for name in names:
        made.add(ids, "", f"flag:missing:{name}", [int(p not in have[name]) for p in ids])
    _far(made, seen, ids)
    site = named_sites(manifest.patients["site"]).loc[list(ids)]
    known = set().union(*(s.fitted.sites for s in seen))
    if known and (site != "").any():
        strange = (site != "") & ~site.isin(known)
        made.add(ids, "", "flag:site", strange.astype(int))
        made.reason(ids, "", strange, [f"site {s} was not among those of the training" for s in site])
    for word, values in outside.attributes(manifest, ids).items():
        found = set().union(*(s.fitted.outside.get("attributes", {}).get(word, ()) for s in seen))
        if not found:
            continue
        new = [sorted(set(values.get(p, ())) - found) for p in ids]
        made.add(ids, "", f"flag:{word}", [int(bool(n)) for n in new])
        told = [f"{word} {', '.join(n)} was not among those of the training" for n in new]
        made.reason(ids, "", pd.Series(map(bool, new)), told)


def _far(made: _Rows, seen: Sequence[Seen], ids: Any) -> None:
    """Whether the patients lie outside of what training saw: of several folds, where at least half of them find so."""
    import numpy as np

    seen = [s for s in seen if "rarity" in s.outside]  # a fold may have fitted nothing to go by
    if not seen:
        return
    frames = [s.outside for s in seen]
    rarity = np.median([f["rarity"].loc[ids] for f in frames], axis=0)
    made.add(ids, "", "outside:rarity", rarity)
    parts = [c for c in frames[0].columns if c not in ("rarity", "furthest")]
    middle = {part: np.median([f[part].loc[ids] for f in frames if part in f], axis=0) for part in parts}
    for part, percentile in middle.items():
        made.add(ids, "", f"outside:{part}", percentile)
    rate = float(seen[0].fitted.outside["rate"])
    made.add([""], "", "outside:rate", [rate])
    made.add([""], "", "outside:reference", [seen[0].fitted.outside["reference"]])
    made.add([""], "", "outside:n", [min(len(s.fitted.outside["known"]) for s in seen)])
    flag = rarity <= rate + 1e-12
    made.add(ids, "", "flag:outside", flag.astype(int))
    told = []
    for k, patient in enumerate(ids):
        most = [f.loc[patient, "furthest"] for f in frames]
        at = max(most, key=lambda part: (most.count(part), part))
        others = {p: v[k] for p, v in middle.items() if v[k] >= 1 - rate and p not in (at, outside.FUSED)}
        named = [at, *sorted(others)] if at != outside.FUSED or not others else sorted(others)
        what = " and ".join("the modalities together" if n == outside.FUSED else n for n in named)
        told.append(f"unlike the training patients in {what}")
    made.reason(ids, "", flag, told)


# ---------------------------------------------------------------------------------------------------------------------
# patients.csv
# ---------------------------------------------------------------------------------------------------------------------


def joined(cautions: pd.DataFrame, told: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """`patients.csv`: the cautions with the reasons of `told` (rows of `trust.csv`), and a task's confidence, spread
    and set."""
    own = told[told["patient_id"] != ""]
    made = cautions.copy()
    for patient, more in own[own["what"] == "reason"].groupby("patient_id", sort=False)["value"]:
        before = str(made["caution"].loc[patient])
        made.loc[str(patient), "caution"] = "; ".join([*([before] if before else []), *more])
    for task in manifest.tasks:
        for what in ("set", "confidence", "spread"):
            of = own[(own["task"] == task) & (own["what"] == what)].set_index("patient_id")["value"]
            if (of != "").any():
                made[f"{what}:{task}"] = of.reindex(made.index).fillna("")
    return made


def save(told: pd.DataFrame, path: Any) -> None:
    """Writes rows of `trust.csv` to `path`."""
    told.to_csv(path, index=False, lineterminator="\n")


def read(path: Any) -> pd.DataFrame:
    """Rows of `trust.csv`, all text. Raises DataFault where the file is none."""
    import pandas as pd

    from nsclc_mtl.records import DataFault

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if absent := sorted(set(COLUMNS) - set(frame.columns)):
        raise DataFault(f"'{path.name}' has no column '{absent[0]}': it is not a table of this program")
    return frame
