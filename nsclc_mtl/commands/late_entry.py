"""Locked predictions of one task and the outcomes of today: who is judged, and from which day on.

Who had the event when the predictions were locked is left out, so whoever stays was free of it until then: counted from
day 0 these days would be lived by selection (immortal time). So survival counts from the follow-up that was known when
locked, and the predictions are those given that the patient came so far (left truncation; Andersen, Borgan, Gill and
Keiding, Statistical Models Based on Counting Processes, 1993, III.3). Where nobody had been followed, as of patients
predicted at diagnosis, nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsclc_mtl.commands.training_parts import PERHAPS, TRAINED_ON

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

JOINED, STILL, NONE, BEFORE = "joined", "no later follow-up", "none yet", "known when locked"
EARLIER, LONG, GONE = "event before that follow-up", "followed too long when locked", "not in the tables"
STATES = (JOINED, STILL, NONE, BEFORE, EARLIER, LONG, GONE, TRAINED_ON, PERHAPS)
"""What `outcomes.csv` says of a patient's outcome; the first two are judged."""
UNWEIGHED = "survival counts from the follow-up known when locked, G of the training from day 0: see own censoring"
LEAST_DAYS = 365.0  # of a curve that must be left behind the follow-up known when locked


@dataclass
class Met:
    """The patients of one task: all by patient_id."""

    state: pd.Series  # one of STATES
    entry: pd.Series  # days of follow-up known when locked, of survival; 0 where none was, or of another task
    truth: pd.DataFrame  # target, event, time_days as in predictions.csv, from day 0; blank of who is not judged

    @property
    def late(self) -> bool:
        """Whether anybody who is judged was followed already when the predictions were locked."""
        return bool((self.entry[self.judged] > 0).any())

    @property
    def judged(self) -> pd.Series:
        """Whether the patient is judged, bool by patient_id."""
        return self.state.isin((JOINED, STILL))


def known(rows: pd.DataFrame) -> pd.Series:
    """Whether the outcome of each patient is settled in these rows of predictions.csv of one task, by patient_id.

    A class or number is there; of survival the event has happened. Who was alive when last seen may still have it.
    """
    first = rows.drop_duplicates("patient_id").set_index("patient_id")
    return (first["target"].astype(str) != "") | (first["event"].fillna(0) > 0)


def sentence(of: Met) -> str:
    """What a reader must know of how the times of a task are counted."""
    entry = of.entry[of.judged]
    late = entry[entry > 0]
    return (
        f"{len(late)} of {len(entry)} patients were followed already when the predictions were locked (median "
        f"{late.median():.0f} days), and only who was free of the event until then is judged. So time counts from the "
        "end of that follow-up: curves are the locked ones given that the patient came so far, S(entry + t) / "
        "S(entry), and 1 year is a year after it; the risk is the locked one. Censoring is weighed by that of these "
        "patients alone, and lower bounds of the time are not judged."
    )


def met(rows: pd.DataFrame, truth: pd.DataFrame, there: pd.Index, training: Mapping[str, str] | None = None) -> Met:
    """Who of the locked rows of one task has which outcome today.

    rows: of predictions.csv (`read_table` types). truth: target, event and time_days of today by patient_id, text as
    `outputs.truth_of` gives it. there: the patients of today's tables. training: patient -> word of `training_parts`:
    who was trained on, perhaps or surely, is never judged. Who was free of the event when locked is judged whatever
    came of it: without later follow-up as censored where the follow-up ended.
    """
    import pandas as pd

    first = rows.drop_duplicates("patient_id").set_index("patient_id").reindex(truth.index)
    before = known(rows).reindex(truth.index)
    days, event = (pd.to_numeric(truth[c].replace("", None)) for c in ("time_days", "event"))
    followed = (first["event"] == 0) & first["time_days"].notna()  # and free of the event so far
    entry = first["time_days"].astype(float).where(followed, 0.0)
    state = pd.Series(NONE, truth.index).mask((truth["target"] != "") | event.notna(), JOINED)
    longer = days > entry
    state = state.mask(followed & ~longer & ~(event > 0), STILL)
    state = state.mask((entry > 0) & (event > 0) & ~longer, EARLIER)
    last = curve_days(rows).max(initial=0.0)
    if last:
        state = state.mask((entry > max(0.0, last - LEAST_DAYS)) & state.isin((JOINED, STILL)), LONG)
    state = state.mask(before, BEFORE).mask(~truth.index.isin(there), GONE)
    words = pd.Series(truth.index.map(dict(training or {})), truth.index)
    state = state.mask(words.isin((TRAINED_ON, PERHAPS)), words)
    still = state == STILL
    truth = truth.where(state == JOINED, "")
    truth.loc[still, "event"] = "0"
    truth.loc[still, "time_days"] = [f"{d:g}" for d in entry[still]]
    return Met(state, entry, truth)


def curve_days(rows: pd.DataFrame) -> np.ndarray:
    """Days at which these rows of predictions.csv tell survival, ascending."""
    import numpy as np

    outputs = [str(o) for o in rows["output"].unique() if str(o).startswith("surv:")]
    return np.array(sorted(float(o.removeprefix("surv:")) for o in outputs))


def since(rows: pd.DataFrame, of: Met) -> pd.DataFrame:
    """These rows of one survival task counted from the follow-up that was known when locked.

    rows: of test patients, as in predictions.csv or floors.csv, of any models. time_days is less the entry;
    `surv:<days>` is S(entry + days) / S(entry), for the days that the curve of every judged patient reaches. Who is not
    judged has no curve, and of competing causes nobody an incidence (`cif:`). The risk stays.
    """
    import pandas as pd

    from nsclc_mtl.metrics.survival_calibration import interpolated

    entry = of.entry[of.judged]
    rows = rows[~rows["output"].str.startswith("cif:")].reset_index(drop=True)
    if "time_days" in rows:
        rows["time_days"] -= rows["patient_id"].map(entry)
    days = curve_days(rows)
    if not len(days):
        return rows
    curve = rows["output"].str.startswith("surv:")
    told = rows[curve & rows["patient_id"].isin(entry.index)]
    keys = [c for c in ("model", "fold", "patient_id") if c in told]
    wide = told.pivot(index=keys, columns="output", values="value")
    saved = wide[[f"surv:{d:g}" for d in days]].to_numpy(float)
    enter = entry.reindex(wide.index.get_level_values("patient_id")).to_numpy(float)
    start = interpolated(days, saved, enter)
    for day in days:
        wide[f"surv:{day:g}"] = interpolated(days, saved, enter + day) / start
    reached = [f"surv:{d:g}" for d in days if d + entry.max() <= days[-1]]
    after = wide[reached].melt(value_name="after", ignore_index=False).reset_index()
    found = told.reset_index().merge(after, on=[*keys, "output"]).set_index("index")
    found["value"] = found.pop("after")
    return pd.concat([rows[~curve], found]).sort_index(ignore_index=True)
