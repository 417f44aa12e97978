"""Splits by site: each site whole in one part, one fold a site, or named patients as the external test part.

Models read the hospital off stain and scanner; where sites differ in outcome, a split that mixes them rewards that
(Howard et al., Nature Communications, 2021). Sites are dealt by greedy placement and local moves and swaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nsclc_mtl.cohort.splits import check, fold_rows, inner, levels, plausible, strata, tidy
from nsclc_mtl.records import DataFault, UsageFault

STARTS = 20  # orders of placement that are tried; the best end is taken
POLICIES = ("refuse", "pool", "train")


@dataclass
class Dealt:
    """A split with the names of its folds and what a reader must know of it."""

    splits: pd.DataFrame
    names: dict[int, str] = field(default_factory=dict)  # fold -> the site that is tested
    notes: list[str] = field(default_factory=list)


def columns(labels: Mapping[str, pd.DataFrame], ids: Sequence[str]) -> np.ndarray:
    """What piles of sites are balanced over: patients, every event and class, every stratum. float [patient, column].

    The strata (event x label) count together as much as one of the others: of many small ones chance decides.
    """
    made = [np.ones(len(ids))]
    for frame in labels.values():
        value = levels(frame, ids).to_numpy(float)
        made += [(value == level).astype(float) for level in np.unique(value[~np.isnan(value)])]
    kinds = strata(labels, ids)
    if len(labels) > 1:
        names = np.unique(kinds)
        made += [(kinds == name) / len(names) for name in names]  # chi-square is linear in the counts
    return np.stack(made, axis=1)


def imbalance(counts: np.ndarray, share: np.ndarray) -> float:
    """Chi-square of piles against their shares, summed over the columns. counts: [pile, column]."""
    expected = share[:, None] * counts.sum(axis=0)
    return float(((counts - expected) ** 2 / np.where(expected > 0, expected, 1)).sum())


def deal_whole(
    weight: np.ndarray, shares: Sequence[float], rng: np.random.Generator, starts: int = STARTS
) -> np.ndarray:
    """Pile of each site, int [site], so that every pile holds a site and the `imbalance` is small.

    weight: [site, column] as sums of `columns`. Sites are placed one by one where it costs least, the largest first
    (then, or where `starts` is 1, in random orders), and moved or swapped for as long as that helps. Raises ValueError
    for fewer sites than piles.
    """
    share = np.asarray(shares, float) / np.sum(shares)
    if len(weight) < len(share):
        raise ValueError(f"{len(weight)} sites for {len(share)} piles")
    size = weight[:, 0]
    best, least = np.zeros(len(weight), int), np.inf
    for start in range(starts):
        blur = np.ones(len(size)) if start == 0 and starts > 1 else rng.uniform(0.5, 1.5, len(size))
        order = np.argsort(-size * blur, kind="stable")
        pile = _improved(_placed(weight, share, order), weight, share)
        cost = imbalance(_piled(weight, pile, len(share)), share)
        if cost < least - 1e-9:
            best, least = pile, cost
    return best


def _piled(weight: np.ndarray, pile: np.ndarray, piles: int) -> np.ndarray:
    counts = np.zeros((piles, weight.shape[1]))
    np.add.at(counts, pile, weight)
    return counts


def _placed(weight: np.ndarray, share: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sites in this order, each into the pile where it costs least; the last ones fill piles that would stay empty."""
    expected = share[:, None] * weight.sum(axis=0)
    scale = np.where(expected > 0, expected, 1)
    counts, pile = np.zeros_like(expected), np.full(len(weight), -1)
    for placed, site in enumerate(order):
        gain = ((counts + weight[site] - expected) ** 2 / scale - (counts - expected) ** 2 / scale).sum(axis=1)
        empty = np.flatnonzero(~np.isin(np.arange(len(share)), pile))
        if len(empty) >= len(order) - placed:
            gain[~np.isin(np.arange(len(share)), empty)] = np.inf
        pile[site] = int(np.argmin(gain))
        counts[pile[site]] += weight[site]
    return pile


def _improved(pile: np.ndarray, weight: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The best move of one site, or swap of two, again and again until none helps. No pile becomes empty."""
    pile = pile.copy()
    expected = share[:, None] * weight.sum(axis=0)
    scale = np.where(expected > 0, expected, 1)
    while True:
        counts = _piled(weight, pile, len(share))
        cost = ((counts - expected) ** 2 / scale).sum(axis=1)  # of each pile
        held = np.bincount(pile, minlength=len(share))
        least, change = -1e-9, None
        for site in range(len(weight)):
            home = pile[site]
            # what each pile costs with the site, and home without it
            with_it = ((counts + weight[site] - expected) ** 2 / scale).sum(axis=1)
            without = ((counts[home] - weight[site] - expected[home]) ** 2 / scale[home]).sum()
            gain = with_it - cost + without - cost[home]
            gain[home] = np.inf
            if held[home] > 1 and gain.min() < least:
                least, change = float(gain.min()), [(site, int(np.argmin(gain)))]
            others = np.flatnonzero((pile != home) & (np.arange(len(pile)) > site))
            if len(others):
                step = weight[others] - weight[site]
                there = pile[others]
                swapped = ((counts[home] + step - expected[home]) ** 2 / scale[home]).sum(axis=1) - cost[home]
                swapped += ((counts[there] - step - expected[there]) ** 2 / scale[there]).sum(axis=1) - cost[there]
                if swapped.min() < least:
                    other = int(others[np.argmin(swapped)])
                    least, change = float(swapped.min()), [(site, int(pile[other])), (other, int(home))]
        if change is None:
            return pile
        for site, to in change:
            pile[site] = to


def preserve(
    labels: Mapping[str, pd.DataFrame],
    ids: Sequence[str],
    site: np.ndarray,
    *,
    folds: int,
    seed: int,
    validation: float = 0.15,
    calibration: float = 0.0,
    repeats: int = 1,
) -> Dealt:
    """Folds in which every site (text [patient], linked sites already one) stands whole in one part.

    Raises UsageFault on impossible shares and DataFault where there are too few sites for the folds and parts.
    """
    plausible(validation, calibration, repeats)
    shares = [1.0 - validation - calibration, validation, calibration]
    parts = [name for name, share in zip(("train", "validation", "calibration"), shares, strict=True) if share > 0]
    shares = [share for share in shares if share > 0]
    names, number = np.unique(site, return_inverse=True)
    people = np.array(ids, dtype=object)
    if folds < 2 or len(names) < folds:
        raise DataFault(
            f"folds.sites=preserve: {len(names)} sites cannot be dealt into {folds} folds; set folds.n to at most "
            f"{len(names)}, or folds.sites to leave_one_out"
        )
    weight = _piled(columns(labels, ids), number, len(names))
    rng = np.random.Generator(np.random.PCG64([seed, 103]))
    rows, told = [], {}
    for first in range(0, folds * repeats, folds):
        # one deal: the best; several: other good ones
        pile = deal_whole(weight, [1.0] * folds, rng, STARTS if repeats == 1 else 1)
        for fold in range(folds):
            left = np.flatnonzero(pile != fold)
            if len(left) < len(parts):
                raise DataFault(
                    f"folds.sites=preserve: {len(left)} of {len(names)} sites are not tested in fold {first + fold}, "
                    f"too few for the parts {', '.join(parts)} of whole sites; set "
                    f"{' and '.join(f'folds.{name}' for name in parts[1:])} to 0, or folds.n lower"
                )
            inside = deal_whole(weight[left], shares, rng)
            part_of = dict(zip(left, np.array(parts, dtype=object)[inside], strict=True))
            rest = np.flatnonzero(pile[number] != fold)
            part = np.array([part_of[number[i]] for i in rest], dtype=object)
            rows += fold_rows(people, np.flatnonzero(pile[number] == fold), rest, part, first + fold)
            told[first + fold] = " + ".join(names[pile == fold])
    return Dealt(check(tidy(pd.concat(rows)), "folds"), told)


def leave_one_out(
    labels: Mapping[str, pd.DataFrame],
    ids: Sequence[str],
    site: np.ndarray,
    *,
    seed: int,
    least: int,
    small: str = "refuse",
    validation: float = 0.15,
    calibration: float = 0.0,
    repeats: int = 1,
    unit: np.ndarray | None = None,
    min_events: int = 0,
) -> Dealt:
    """A fold for every site (text [patient]), which is its test part; the others train and validate, dealt by patient.

    A site is small where it has fewer than `least` patients, or fewer than `min_events` events of a survival task:
    `refuse` names them in a DataFault, `pool` tests them together in the last fold, `train` never tests them.
    """
    plausible(validation, calibration, repeats)
    if small not in POLICIES:
        raise UsageFault(f"folds.small_sites={small!r} is none of {', '.join(POLICIES)}")
    names, number = np.unique(site, return_inverse=True)
    short = too_small(labels, ids, site, least, min_events)
    notes = []
    tests = [(str(name), number == k) for k, name in enumerate(names) if str(name) not in short]
    if short:
        told = ", ".join(short[name] for name in sorted(short))
        if small == "refuse":
            raise DataFault(
                f"folds.sites=leave_one_out: {len(short)} of {len(names)} sites are too small to be a test part "
                f"({_first(told)}); set folds.small_sites to pool or train, or folds.site_patients lower than {least}"
            )
        if small == "pool":
            tests.append((" + ".join(sorted(short)), np.isin(site, sorted(short))))
            notes.append(f"sites tested together in fold {len(tests) - 1}, each too small alone: {told}")
        else:
            notes.append(f"sites that train and are never tested, each too small: {told}")
    if len(tests) < 2 and not (tests and small == "train" and short):
        raise DataFault(f"folds.sites=leave_one_out needs two sites that can be tested; there are {len(tests)}")
    stratum, people = strata(labels, ids), np.array(ids, dtype=object)
    rng = np.random.Generator(np.random.PCG64([seed, 104]))
    rows, named = [], {}
    for again in range(repeats):
        for k, (name, tested) in enumerate(tests):
            fold, rest = again * len(tests) + k, np.flatnonzero(~tested)
            part = inner(stratum[rest], validation, calibration, rng, None if unit is None else unit[rest])
            rows += fold_rows(people, np.flatnonzero(tested), rest, part, fold)
            named[fold] = name
    return Dealt(check(tidy(pd.concat(rows)), "folds"), named, notes)


def too_small(
    labels: Mapping[str, pd.DataFrame], ids: Sequence[str], site: np.ndarray, least: int, min_events: int
) -> dict[str, str]:
    """Sites (text [patient]) that are too small to be tested alone, by name: the name with the counts."""
    out = {}
    for name in map(str, np.unique(site)):
        inside = [patient for patient, at in zip(ids, site, strict=True) if at == name]
        events = {task: int(frame.reindex(inside)["event"].sum()) for task, frame in labels.items() if "event" in frame}
        few = [f"{n} events of {task}" for task, n in events.items() if n < min_events]
        if len(inside) < least or few:
            out[name] = f"{name} ({', '.join([f'{len(inside)} patients', *few])})"
    return out


def _first(told: str, most: int = 300) -> str:
    return told if len(told) <= most else told[:most].rsplit(",", 1)[0] + " and others"


def external(
    labels: Mapping[str, pd.DataFrame],
    ids: Sequence[str],
    tested: np.ndarray,
    *,
    seed: int,
    name: str,
    validation: float = 0.15,
    calibration: float = 0.0,
    repeats: int = 1,
    unit: np.ndarray | None = None,
) -> Dealt:
    """One fold (one a repeat) in which the patients `tested` (bool [patient]) are the test part and nobody else is.

    Raises DataFault where a `unit` of patients who belong together stands on both sides.
    """
    plausible(validation, calibration, repeats)
    if not tested.any() or tested.all():
        raise DataFault(f"folds.external={name}: {int(tested.sum())} of {len(ids)} patients are external; name some")
    people = np.array(ids, dtype=object)
    if unit is not None:
        crossing = sorted(set(unit[tested]) & set(unit[~tested]))
        if crossing:
            both = unit == crossing[0]
            inside, outside = people[both & tested][0], people[both & ~tested][0]
            raise DataFault(
                f"folds.external={name}: patients {inside} (external) and {outside} (not) belong together "
                f"({len(crossing)} such groups); leave one of them out, or narrow folds.together"
            )
    stratum, rest = strata(labels, ids), np.flatnonzero(~tested)
    rng = np.random.Generator(np.random.PCG64([seed, 105]))
    rows = []
    for fold in range(repeats):
        part = inner(stratum[rest], validation, calibration, rng, None if unit is None else unit[rest])
        rows += fold_rows(people, np.flatnonzero(tested), rest, part, fold)
    return Dealt(check(tidy(pd.concat(rows)), "folds"), dict.fromkeys(range(repeats), name))
