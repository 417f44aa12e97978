"""What a server lets into its model: the form of every update, its numbers, its patients and its length.

A guard sees what is impossible or out of all proportion. It does not see an update of ordinary length that points the
wrong way: patients with exchanged labels, a site that was told to forget a subgroup, a hidden trigger. Nor does it see
through secure summation: there the sum alone can be judged (`fault_of_sum`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nsclc_mtl.federated import masks
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.update import State, Update

MOST_METRICS = 200
MOST_LETTERS = 200  # of a metric's name, and of one that is a word
LARGEST_METRIC = 1e15
_SHOWN = 60  # letters of a stranger's word in our sentences


def accepted(
    updates: Sequence[Update],
    like: State,
    start: State,
    plan: Plan,
    counts: Mapping[str, int],
    memory: float = 0.0,
) -> tuple[list[Update], dict[str, str]]:
    """The updates that may enter the model, sorted by site, and of every other site the sentence why not.

    Args:
        like: names, shapes and dtypes of what a site sends. start: the model that the round began with. counts: how
            many training patients each site has said to have. memory: the largest `yardstick` of former rounds.

    A site that is not in `counts`, or has sent two updates, is left out too. Nothing is ever raised.
    """
    told: dict[str, str] = {}
    sound: list[Update] = []
    for update in sorted(updates, key=lambda update: update.site):
        if update.site not in counts:
            told[update.site] = "is not one of the sites that began this training"
        elif sum(other.site == update.site for other in updates) > 1:
            told[update.site] = "has sent more than one update for the round"
        elif (wrong := fault(update, like, start, counts[update.site])) is not None:
            told[update.site] = wrong
        else:
            sound.append(update)
    long = too_long(sound, start, plan.norm_limit, memory)
    return [update for update in sound if update.site not in long], told | long


def fault(update: Update, like: State, start: State, most_n: int) -> str | None:
    """Why this update cannot be used, without its site's name; None where its form and numbers are sound.

    Names, shapes and dtypes are those of `like`, all numbers are finite and so is the length of what they change in
    `start`; 1 <= n <= `most_n`; metrics are few, and each is a finite number, a short word or None.
    """
    wrong = _fault_of_state(update.state, like, start)
    if wrong is None and not _is_whole(update.n):
        wrong = f"its number of patients is {_shown(update.n)}, not a whole number"
    if wrong is None and not 1 <= update.n <= most_n:
        wrong = f"says to have trained on {update.n} patients, of 1 to {most_n}"
    return wrong or _fault_of_metrics(update.metrics)


def fault_of_sum(
    state: State,
    n: int,
    like: State,
    start: State,
    most_n: int,
    limit: float = math.inf,
    memory: float = 0.0,
) -> str | None:
    """Why the opened mean of a secure summation cannot be used; None where it is sound.

    `most_n`: the patients of all its sites together. Its length is compared with `limit` times the largest one of
    former rounds (`memory`; 0 = there is none yet, and every length passes). Which site it was cannot be told.
    """
    wrong = _fault_of_state(state, like, start)
    if wrong is None and not (_is_whole(n) and 1 <= n <= most_n):
        wrong = f"stands for {_shown(n)} patients, of 1 to {most_n}"
    if wrong is None and memory > 0 and (own := length(state, start)) > limit * memory:
        wrong = f"changes the model by {own:.3g}, more than {limit:g} times the {memory:.3g} of former rounds"
    return wrong


def fault_of_masked(arrays: Mapping[str, Any], like: State) -> str | None:
    """Why these masked numbers of one site cannot be added to those of others; None where their form is right."""
    wanted = {name: np.zeros(np.shape(values), np.uint64) for name, values in like.items()} | masks.extra()
    return _fault_of_form(arrays, wanted)


def too_long(updates: Sequence[Update], start: State, limit: float, memory: float = 0.0) -> dict[str, str]:
    """Sites whose update is more than `limit` times as long as the `yardstick`, each with a sentence.

    Up to half of the sites (rounded down) can be far too long and are all seen; of two sites the longer one is. What
    this cannot see: a majority that is too long together; and, before there is a memory, half of the sites that make
    themselves tiny so that the others look long: these are left out, and the round has too few answers.

    >>> state = lambda x: {"w": np.array([x])}
    >>> too_long([Update("A", state(1.0), 5), Update("B", state(-900.0), 5)], state(0.0), 10.0)
    {'B': 'changes the model by 900, more than 10 times the usual 1'}
    """
    usual = yardstick(updates, start, memory)
    lengths = {update.site: length(update.state, start) for update in updates}
    return {
        site: f"changes the model by {own:.3g}, more than {limit:g} times the usual {usual:.3g}"
        for site, own in lengths.items()
        if own > limit * usual
    }


def yardstick(updates: Sequence[Update], start: State, memory: float = 0.0) -> float:
    """The lower median of the updates' lengths, or `memory` where that is larger: what is usual.

    Hand the largest one of former rounds back as `memory`. It is the largest usual length and not the largest accepted
    one: by that a bad site could raise the limit `norm_limit`-fold in every round. Updates that change nothing are no
    measure of the others. 0 where nobody changes anything.
    """
    lengths = sorted(own for update in updates if (own := length(update.state, start)) > 0)
    return max(memory, lengths[(len(lengths) - 1) // 2] if lengths else 0.0)


def length(state: State, start: State) -> float:
    """Euclidean norm of state - start over all numbers, in double precision; inf where that does not hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [
            np.square(np.asarray(values, np.float64) - np.asarray(start[name], np.float64)).sum()
            for name, values in state.items()
        ]
        total = float(np.sum(squares)) if squares else 0.0
    return math.inf if math.isnan(total) else math.sqrt(total)


def _fault_of_state(state: Mapping[str, Any], like: State, start: State) -> str | None:
    wrong = _fault_of_form(state, like)
    if wrong is None:
        bad = next((name for name, values in state.items() if not np.isfinite(values).all()), None)
        wrong = None if bad is None else f"has numbers in '{bad}' that are not finite"
    if wrong is None and not math.isfinite(length(state, start)):
        wrong = "changes the model by more than can be measured"
    return wrong


def _fault_of_form(state: Mapping[str, Any], like: Mapping[str, np.ndarray]) -> str | None:
    if missing := [name for name in like if name not in state]:
        return f"lacks {len(missing)} of the {len(like)} arrays of the model (first: '{missing[0]}')"
    if further := [name for name in state if name not in like]:
        return f"has {len(further)} arrays that the model has not (first: {_shown(further[0])})"
    for name, wanted in like.items():
        values = state[name]
        if not isinstance(values, np.ndarray):
            return f"'{name}' is no array"
        if values.shape != wanted.shape:
            return f"'{name}' has the shape {_shown(list(values.shape))}, the model's is {list(wanted.shape)}"
        if values.dtype != wanted.dtype:
            return f"'{name}' is of type {_shown(values.dtype.name)}, the model's is {wanted.dtype.name}"
    return None


def _fault_of_metrics(metrics: Any) -> str | None:
    if not isinstance(metrics, Mapping):
        return "its metrics are no table"
    if len(metrics) > MOST_METRICS:
        return f"has {len(metrics)} metrics, more than {MOST_METRICS}"
    for name, value in metrics.items():
        if not isinstance(name, str) or len(name) > MOST_LETTERS:
            return f"has a metric whose name is no short word ({_shown(name)})"
        if isinstance(value, str):
            plain = len(value) <= MOST_LETTERS
        else:
            plain = value is None or (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) <= LARGEST_METRIC  # false for NaN; Python compares whole numbers of any size
            )
        if not plain:
            return f"its metric {_shown(name)} is {_shown(value)}, neither a usual number nor a short word"
    return None


def _is_whole(n: Any) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool)


def _shown(word: Any) -> str:
    """A stranger's word as it may stand in our log: one line, and short."""
    if isinstance(word, int) and not isinstance(word, bool) and abs(word) > LARGEST_METRIC:
        return "a whole number of more than 15 digits"  # Python refuses to print some of them
    kind = type(word).__name__
    try:
        said = ascii(word if len(word) <= 2 * _SHOWN else word[: 2 * _SHOWN]) if isinstance(word, str) else ascii(word)
    except Exception:  # the value is a stranger's, and printing it may raise anything; judging never raises
        return f"a {kind}"
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
