"""Survival endpoints: their names, what each of them counts as an event, and composites of declared components."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import cells

NAMES = {
    "OS": "overall survival",
    "DSS": "disease-specific survival",
    "PFS": "progression-free survival",
    "PFI": "progression-free interval",
    "DFS": "disease-free survival",
    "DFI": "disease-free interval",
    "RFS": "recurrence-free survival",
    "MFS": "metastasis-free survival",
    "EFS": "event-free survival",
    "TTP": "time to progression",
}
"""As FDA's guidance on cancer trial endpoints (2018) has them, the intervals as TCGA-CDR (Liu et al., Cell 2018)."""
COUNTS = {
    "OS": (("death",), ()),
    "PFS": (("progression", "death"), ()),
    "DFS": (("recurrence", "death"), ()),
    "RFS": (("recurrence", "death"), ()),
    "MFS": (("metastasis", "death"), ()),
    "TTP": (("progression",), ("death",)),
}
"""What the components of a composite of this name must be, and must not be."""


def endpoint(name: str, declared: Mapping[str, Any]) -> str:
    """The endpoint in words: `OS` is overall survival; words of one's own stay. Raises UsageFault on a misspelt one.

    >>> endpoint("os", {"endpoint": "PFS"}), endpoint("relapse", {}), endpoint("os", {})
    ('progression-free survival', 'relapse', 'overall survival')
    """
    given = str(declared.get("endpoint") or name)
    if given.upper() in NAMES:
        return NAMES[given.upper()]
    known = {word.casefold(): word for word in NAMES.values()}
    bare = given.casefold().replace("_", " ").strip()
    if bare in known:
        return known[bare]
    near = difflib.get_close_matches(bare, known, n=1, cutoff=0.85)
    if declared.get("endpoint") and near:
        raise UsageFault(
            f"cohort.tasks.{name}.endpoint={given!r} is no endpoint, but near to '{near[0]}'; write "
            f"{', '.join(NAMES)}, or other words of your own"
        )
    return given


def declared_columns(name: str, declared: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of a composite endpoint (`events_any`, `censored_at`). Raises UsageFault where a part is wanting."""
    where, parts = f"cohort.tasks.{name}", declared["events_any"]
    if not isinstance(parts, Mapping) or not parts:
        raise UsageFault(f"{where}.events_any needs components by name, each with event, events and time")
    for word in ("time", "event", "events"):
        if declared.get(word):
            raise UsageFault(f"{where} declares both `events_any` and `{word}`; the components have their own")
    if not declared.get("censored_at"):
        raise UsageFault(
            f"{where} declares no `censored_at`; name the column of the time up to which a patient without any event "
            "was known to be free of them all (the last assessment, or the last follow-up)"
        )
    columns = []
    for part, of in parts.items():
        for word in ("event", "events", "time"):
            if not of.get(word):
                raise UsageFault(f"{where}.events_any.{part} declares no `{word}`; it needs event, events, time")
        check_events(f"{where}.events_any.{part}", of["events"])
        check_unit(f"{where}.events_any.{part}", of.get("unit", declared.get("unit")))
        columns += [of["time"], of["event"]]
    check_unit(where, declared.get("unit"))
    _counts(where, endpoint(name, declared), list(parts))
    return tuple(dict.fromkeys([*columns, declared["censored_at"]]))


def check_events(where: str, events: Mapping[Any, Any], causes: tuple[str, ...] = ()) -> None:
    """Raises UsageFault where an event map gives anything but 1, 0 and null; with causes: their names, 0 and null."""
    strange = [v for v in events.values() if v is not None and v not in (0, *(causes or (1,)))]
    if strange and causes:
        words = ", ".join(causes)
        raise UsageFault(
            f"{where}.events gives {strange[0]!r}; with `causes` each value is {words}, 0 (censored) or null"
        )
    if strange:
        raise UsageFault(
            f"{where}.events gives {strange[0]!r}; each value is 1 (happened), 0 (censored) or null; competing "
            "kinds of event are named by `causes`"
        )
    if absent := [cause for cause in causes if cause not in events.values()]:
        raise UsageFault(
            f"{where}.events gives nobody the cause '{absent[0]}'; name its values, or take it out of `causes`"
        )


def declared_causes(where: str, declared: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the competing causes, the one of interest first; none where there is one kind of event.

    Raises UsageFault where they are not two or more words of their own.
    """
    given = declared.get("causes")
    if given is None:
        return ()
    if declared.get("events_any") is not None:
        raise UsageFault(
            f"{where} declares both `events_any` and `causes`; competing causes are values of one column, `event`"
        )
    names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    sound = [name for name in names if isinstance(name, str) and name.strip() and ":" not in name]
    if len(names) < 2 or len(set(sound)) != len(names):
        raise UsageFault(
            f"{where}.causes={given!r}: name two causes or more, the one of interest first, each a text without ':'"
        )
    return tuple(sound)


def check_unit(where: str, unit: Any) -> None:
    """Raises UsageFault where a unit of time is absent or strange."""
    if unit not in cells.DAYS:
        raise UsageFault(f"{where}.unit={unit!r} is none of {', '.join(cells.DAYS)}")


def _counts(where: str, called: str, parts: list[str]) -> None:
    short = next((s for s, words in NAMES.items() if words == called), "")
    must, must_not = COUNTS.get(short, ((), ()))
    absent, strange = [p for p in must if p not in parts], [p for p in parts if p in must_not]
    if short == "OS":
        strange = [p for p in parts if p != "death"]
    if absent:
        raise UsageFault(
            f"{where}: {called} counts {' and '.join(must)}, and events_any has no `{absent[0]}` (it has "
            f"{', '.join(parts)}); add it, or call the endpoint what it is"
        )
    if strange:
        raise UsageFault(
            f"{where}: {called} does not count `{strange[0]}`; take it out, or call the endpoint what it is"
        )


def composite(
    name: str, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> tuple[pd.Series, pd.Series]:
    """Event (1, 0, NaN) and time in days of the first of several events, by patient.

    An event happened when any component did, at the earliest of their times; nobody had it whose components are all
    known not to have happened, up to `censored_at`. Where a component is unknown, or happened at an unknown time, the
    first event cannot be known (but for a death after a dated event): no label, which is noted. Raises DataFault on a
    status that no map names and on an event later than the death of the same patient.
    """
    where, happened, when = f"cohort.tasks.{name}", {}, {}
    for part, of in declared["events_any"].items():
        events = {str(k): v for k, v in of["events"].items()}
        status = cells.column(table, of["event"], file)
        cells.all_named(status, events, f"{where}.events_any.{part}.events", file, of["event"])
        happened[part] = status.map(events.get).astype(float)
        when[part] = cells.times(table, of["time"], of.get("unit", declared["unit"]), file)
    event, time = pd.DataFrame(happened), pd.DataFrame(when)
    if "death" in event:
        dead = time["death"].where(event["death"] == 1)
        for part in (p for p in event if p != "death"):
            late = event.index[(event[part] == 1) & (time[part] > dead)]
            if len(late):
                raise DataFault(
                    f"'{file}': {part} is dated after death for {cells.rows(late)}; correct their times "
                    f"({where}.events_any)"
                )
    any_event = (event == 1).any(axis=1)
    open_part = event.isna() | ((event == 1) & time.isna())
    others = event.drop(columns="death", errors="ignore").columns
    dated = ((event[others] == 1) & time[others].notna()).any(axis=1)
    if "death" in open_part:  # nobody dies before the event that was seen
        open_part["death"] &= ~dated
    unsure = open_part.any(axis=1)
    if (any_event & unsure).any():
        notes.append(
            f"{name}: {int((any_event & unsure).sum())} patients had an event, but another component or its time is "
            "not known, so that the first event is not: no label"
        )
    first = time.where(event == 1).min(axis=1)
    free = cells.times(table, declared["censored_at"], declared["unit"], file)
    made = pd.Series(np.where(any_event, 1.0, 0.0), event.index).where(~unsure)
    return made, first.where(any_event, free)
