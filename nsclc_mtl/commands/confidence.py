"""What a fold's calibration patients teach of its predictions: temperatures, curves, prediction sets and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest, UsageFault, event_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Outputs = Mapping[str, "pd.DataFrame"]  # task -> patients x outputs
Trust = Mapping[str, Mapping[str, Any]]  # task -> what was fitted

MISS = 0.1
HORIZON_DAYS = 1095.0


def who_calibrates(settings: Mapping[str, Any], parts: Mapping[str, Sequence[str]], tuned: bool = False) -> list[str]:
    """Patients of the fold who teach temperatures, sets and bounds; nobody where none was set aside.

    With `trust.validation` those of the validation part too. Raises UsageFault where training looked at them: early
    stopping chose the epoch by them, or a study its settings.
    """
    found = list(parts.get("calibration") or [])
    if settings["trust"].get("validation"):
        if "early_stopping" in (settings.get("callbacks") or {}) or tuned:
            raise UsageFault(
                "trust.validation=true: the validation part has chosen the "
                f"{'settings' if tuned else 'epoch'}, so that it would calibrate too well: set folds.calibration above "
                "0 instead" + ("" if tuned else ", or callbacks=none")
            )
        found += parts.get("validation") or []
    return found


def followed(manifest: Manifest, train: Sequence[str], horizon: float = HORIZON_DAYS) -> dict[str, dict[str, float]]:
    """Survival task -> {horizon_days, until_days}, from its training patients; regression -> {sd} of its numbers.

    The horizon is the one asked for, or the day beyond which a tenth of the training patients is still followed, if
    that comes first; `until_days` is that day.
    """
    from nsclc_mtl.trust.survival_bounds import followed_until

    found: dict[str, dict[str, float]] = {}
    for task, spec in manifest.tasks.items():
        known = manifest.labels[task].loc[list(train)].dropna()
        if spec.kind == "survival" and len(known):
            until = followed_until(known["time_days"])
            found[task] = {"horizon_days": min(float(horizon), until), "until_days": until}
        elif spec.kind == "regression" and len(known) > 1:
            found[task] = {"sd": float(known["value"].std())}
    return found


def fit(
    outputs: Outputs,
    manifest: Manifest,
    miss: float,
    populations: Mapping[str, Any] | None = None,
    *,
    mondrian: str = "none",
    train: Sequence[str] = (),
    horizon: float = HORIZON_DAYS,
    sloped: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """What the patients of `outputs`, whom training did not see, teach of each task of which one is labelled.

    Classes: temperature (not of tasks in `sloped`, whose slope others have told), threshold, miss, n. Regression:
    half_width of its interval, miss, n. Survival, where `train` names the patients whose censoring is known: shift,
    slope and centre of the calibration at horizon_days, level of the lower bounds, until_days, miss, n. `mondrian` =
    class or site adds `groups`: name -> its own threshold (of bounds level, of intervals half_width) and n; a group
    that is too small for `miss` has n alone, and is served as all are.

    The threshold is for probabilities as `scaled` gives them, with the same `populations`; its promise holds for
    patients like those of the calibration part, whatever population is stated.
    """
    from nsclc_mtl.tasks import prior
    from nsclc_mtl.trust import conformal, temperature

    found: dict[str, dict[str, Any]] = {}
    for task, wide in outputs.items():
        spec, label = manifest.tasks[task], manifest.labels[task].loc[wide.index]
        known = label.dropna()
        if known.empty:
            continue
        if spec.kind == "survival":
            if len(train):
                found[task] = _survival(wide.loc[known.index], manifest, task, train, miss, mondrian, horizon)
            continue
        value = known["value"]
        if spec.kind == "regression":
            said = wide.loc[known.index, "value"]

            def width(ids: Any, value: Any = value, said: Any = said) -> dict[str, float]:
                return {"half_width": conformal.half_width(value[ids], said[ids], miss)}

            made: dict[str, Any] = {**width(known.index), "miss": miss, "n": len(known)}
            if mondrian == "site":
                made["groups"] = _by_site(manifest, known.index, miss, width)
            found[task] = made
            continue
        proba, label_of = _proba(wide.loc[known.index], spec.classes), value.to_numpy(int)
        warmth = {} if task in sloped else {"temperature": temperature.fit(proba, label_of)}
        told = temperature.scaled(proba, warmth["temperature"]) if warmth else proba
        if task in (populations or {}):
            told = prior.moved(told, populations[task])  # type: ignore[index]
        at = conformal.threshold(told, label_of, miss)
        made = {**warmth, "threshold": at, "miss": miss, "n": len(known)}
        if mondrian == "class":
            each, count = conformal.thresholds_by_class(told, label_of, miss)
            least = conformal.fewest(miss)
            made["groups"] = {
                name: {"threshold": float(a), "n": int(n)} if n >= least else {"n": int(n)}
                for name, a, n in zip(spec.classes, each, count, strict=True)
            }
        elif mondrian == "site":
            place = {p: i for i, p in enumerate(known.index)}

            def own(ids: Any, told: Any = told, y: Any = label_of, place: Any = place) -> dict[str, float]:
                rows = [place[p] for p in ids]
                return {"threshold": conformal.threshold(told[rows], y[rows], miss)}

            made["groups"] = _by_site(manifest, known.index, miss, own)
        if "groups" in made:
            made["mondrian"] = mondrian
        found[task] = made
    for made in found.values():
        if "groups" in made:
            made.setdefault("mondrian", "site")
    return found


def _survival(
    wide: pd.DataFrame, manifest: Manifest, task: str, train: Sequence[str], miss: float, mondrian: str, horizon: float
) -> dict[str, Any]:
    import pandas as pd

    from nsclc_mtl.metrics.survival import censoring_curve
    from nsclc_mtl.records import DataFault
    from nsclc_mtl.trust import survival_bounds, survival_calibration

    days, curve = curves(wide)
    own, others = (_ended(manifest.labels[task].loc[list(ids)]) for ids in (wide.index, train))
    at = followed(manifest, train, horizon)[task]
    made: dict[str, Any] = {"miss": miss, "n": len(wide), **at}
    time, event = own["time_days"].to_numpy(float), own["event"].to_numpy(float)
    try:
        made |= survival_calibration.fit(curve, days, time, event, at["horizon_days"])
    except DataFault:  # nobody had the event: the curves stay as they are
        made["events"] = 0
    if "shift" in made:
        curve = _calibrated(curve, days, made)
    g = censoring_curve(others["time_days"], others["event"])

    def level(ids: Any) -> dict[str, float]:
        rows = wide.index.get_indexer(pd.Index(ids))
        of = survival_bounds.fit(curve[rows], days, time[rows], event[rows], g, miss, at["until_days"])
        return {"level": of["level"]}

    made |= level(wide.index)
    if mondrian == "site":
        made["groups"] = _by_site(manifest, wide.index, miss, level)
    return made


def _ended(label: pd.DataFrame) -> pd.DataFrame:
    """Days and events of the labelled; of competing causes any event, as the curves are of any."""
    known = label.dropna()
    return known.assign(event=(known[event_column(known)] > 0).astype(float))


def _by_site(manifest: Manifest, ids: Any, miss: float, make: Any) -> dict[str, dict[str, Any]]:
    """Site -> what `make` gives for its patients, and n; n alone where they are too few for `miss`."""
    from nsclc_mtl.tables.harmonize import named_sites
    from nsclc_mtl.trust.conformal import fewest

    site = named_sites(manifest.patients["site"]).loc[list(ids)]
    if not (site != "").any():
        raise UsageFault(
            f"trust.mondrian=site: cohort={manifest.name} declares no sites: name their column in cohort.patients.site"
        )
    out: dict[str, dict[str, Any]] = {}
    for name, members in site[site != ""].groupby(site):
        out[str(name)] = {"n": len(members)} | (make(members.index) if len(members) >= fewest(miss) else {})
    return out


def curves(wide: pd.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Days [day], ascending, and survival curves [patient, day] of a survival task's outputs."""
    import numpy as np

    columns = sorted((float(c.split(":", 1)[1]), c) for c in wide.columns if c.startswith("surv:"))
    return np.array([d for d, _ in columns]), wide[[c for _, c in columns]].to_numpy(float)


def _calibrated(curve: Any, days: Any, of: Mapping[str, Any]) -> Any:
    from nsclc_mtl.trust import survival_calibration

    return survival_calibration.scaled(curve, days, of["shift"], of["slope"], of["centre"], of["horizon_days"])


def _incidence(cif: Any, curve: Any, moved: Any) -> Any:
    """Cumulative incidence [patient, day] of a cause under the moved curve: between two days the cause has the share of
    the events that it had under the old one, so that all causes and the curve still sum to one."""
    import numpy as np

    def steps(of: Any, begin: float) -> Any:
        return np.diff(of, axis=1, prepend=begin)

    events = -steps(curve, 1.0)
    share = np.divide(steps(cif, 0.0), events, out=np.zeros_like(cif), where=events > 0)
    return np.cumsum(-steps(moved, 1.0) * share, axis=1)


def scaled(
    outputs: Outputs, manifest: Manifest, trust: Trust, populations: Mapping[str, Any] | None = None
) -> dict[str, pd.DataFrame]:
    """The outputs with probabilities at the slopes, levels and temperatures of `trust`, then at the prevalence of the
    stated populations, and survival curves calibrated at their horizon, with the cumulative incidences of causes.

    `populations`: task -> log ratio of the classes' shares (see `tasks.prior.population`). The others as they are.
    """
    from nsclc_mtl.tasks import prior
    from nsclc_mtl.trust import recalibration, temperature

    made, stated = dict(outputs), populations or {}
    for task in (trust.keys() | stated.keys()) & made.keys():
        wide, of = made[task].copy(), trust.get(task, {})
        if "shift" in of:
            days, curve = curves(wide)
            moved = _calibrated(curve, days, of)
            wide[[f"surv:{d:g}" for d in days]] = moved
            for cause in manifest.tasks[task].causes:
                names = [f"cif:{cause}:{d:g}" for d in days]
                if set(names) <= set(wide.columns):
                    wide[names] = _incidence(wide[names].to_numpy(float), curve, moved)
        spec = manifest.tasks[task]
        columns = [f"p:{name}" for name in spec.classes]
        if "recalibration" in of:
            proba = wide[columns].to_numpy(float)
            wide[columns] = recalibration.scaled(proba, of["recalibration"], spec.kind == "ordinal")
        if "temperature" in of:
            wide[columns] = temperature.scaled(wide[columns].to_numpy(float), of["temperature"])
        if task in stated:
            wide[columns] = prior.moved(wide[columns].to_numpy(float), stated[task])
        made[task] = wide
    return made


def sets(each: Sequence[tuple[Outputs, Trust]], manifest: Manifest) -> pd.DataFrame:
    """Prediction sets in words (`G2|G3`), a column `set:<task>`, from the outputs and `trust` of one or more folds.
    Of a regression the interval, `12.5 to 18.2`; of survival the lower bound, `412 days or more`.

    Of several folds a class belongs to the set when at least half of their sets hold it; whatever the folds share, such
    a vote misses at most twice as often as one set (`conformal.promised`). So for intervals and bounds.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.trust import conformal, survival_bounds

    first = each[0][0]
    made = pd.DataFrame(index=next(iter(first.values())).index)
    for task, wide in first.items():
        kind, classes = manifest.tasks[task].kind, manifest.tasks[task].classes
        word = {"survival": "level", "regression": "half_width"}.get(kind, "threshold")
        if any(word not in trust.get(task, {}) for _, trust in each):
            continue
        at = [_of_group(t[task], word, manifest, wide.index) for _, t in each]
        if kind == "survival":
            lows = []
            for (o, t), level in zip(each, at, strict=True):
                days, curve = curves(o[task].loc[wide.index])
                low = np.empty(len(wide))
                for one in np.unique(level):
                    rows = level == one
                    low[rows] = survival_bounds.bounds(curve[rows], days, float(one), t[task]["until_days"])
                lows.append(low)
            low, _ = conformal.joined(lows, lows)
            made[f"set:{task}"] = [f"{np.floor(a):.0f} days or more" for a in low]
        elif not classes:
            said = [o[task].loc[wide.index, "value"].to_numpy(float) for o, _ in each]
            low, high = conformal.joined(
                [v - half for v, half in zip(said, at, strict=True)],
                [v + half for v, half in zip(said, at, strict=True)],
            )
            made[f"set:{task}"] = [f"{a:.5g} to {b:.5g}" for a, b in zip(low, high, strict=True)]
        else:
            held = []
            for (o, t), limit in zip(each, at, strict=True):
                limits = limit[:, None]
                if t[task].get("mondrian") == "class":
                    groups = t[task]["groups"]
                    limits = np.array([groups[c].get("threshold", t[task]["threshold"]) for c in classes])
                held.append(conformal.sets(_proba(o[task].loc[wide.index], classes), limits))
            votes = np.mean(held, axis=0)
            made[f"set:{task}"] = ["|".join(c for c, v in zip(classes, row, strict=True) if v >= 0.5) for row in votes]
    return made


def _of_group(of: Mapping[str, Any], word: str, manifest: Manifest, ids: Any) -> np.ndarray[Any, Any]:
    """The number that holds for each patient: that of his site where there is one, else that of all, [patient]."""
    import numpy as np

    from nsclc_mtl.tables.harmonize import named_sites

    if of.get("mondrian") != "site":
        return np.full(len(ids), float(of[word]))
    site = named_sites(manifest.patients["site"]).loc[list(ids)]
    return np.array([float(of["groups"].get(s, {}).get(word, of[word])) for s in site])


def _proba(wide: pd.DataFrame, classes: Sequence[str]) -> np.ndarray[Any, Any]:
    return wide[[f"p:{name}" for name in classes]].to_numpy(float)
