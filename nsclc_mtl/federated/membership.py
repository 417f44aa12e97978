"""Can one tell from a model who trained it? A self-test by the oldest attack: training patients have smaller losses.

The attack is that of Yeom et al. (CSF 2018): whoever knows a patient's data and label, and the model, calls him a
training patient where his loss is small. It is run on a fold's training patients and on patients of the same sites whom
the model has not seen, and judged by its AUC (.5 = nothing is told) and by the share of the training patients that it
finds while it wrongly names a tenth of the others; smaller shares cannot be measured on cohorts of some hundred. The
AUC sees how much a model has learned by heart; single patients it points at poorly, since among the others are some
whom a confident model gets right by chance. Where it finds nothing that is no proof: attacks that train models of
their own (Carlini et al., S&P 2022) find more, and only differential privacy puts a bound on all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nsclc_mtl.metrics.classification import midranks
from nsclc_mtl.metrics.comparison import Interval, bootstrap, repeated
from nsclc_mtl.metrics.pairs import classes_in_order

if TYPE_CHECKING:
    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.learner import Learner
    from nsclc_mtl.records import Batch

ALL = "all tasks"
FALSE_ALARMS = 0.1


@dataclass(frozen=True)
class Losses:
    """What one trained model loses on patients: `of[task]` float [patient], NaN where a label is unknown.

    `member` is True for those who trained it, bool [patient]. `sites` are names; patients are compared within a site.
    """

    patients: Sequence[str]
    member: np.ndarray
    of: Mapping[str, np.ndarray]
    sites: Sequence[str]


@dataclass(frozen=True)
class Attack:
    """How well the attack does on one task, or on all of them: `found` is the share of the training patients that it
    finds at a false alarm for a tenth of the others."""

    task: str
    auc: Interval
    found: Interval
    members: int
    others: int
    reading: str


def losses_of(model: Learner, batches: Iterable[Batch]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Patients in their order, and the loss of each on every task, float [patient]; NaN where his label is unknown.

    Without dropout, and each patient's own: also of a ranking loss the part that one patient has. Cox's likelihood has
    no loss of a single patient; its tasks are left out.
    """
    import torch

    from nsclc_mtl.bags.datamodule import moved
    from nsclc_mtl.records import Target
    from nsclc_mtl.tasks.cox import Cox

    tasks = {name: task for name, task in model.each_task() if not isinstance(task, Cox)}
    patients: list[str] = []
    each: dict[str, list[float]] = {name: [] for name in tasks}
    training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            there = moved(batch, model.device)
            out, _ = model(there)
            patients += batch.patients
            for name, task in tasks.items():
                target = there.targets[name]
                for i in range(len(batch)):
                    event = None if target.event is None else target.event[i : i + 1]
                    own = Target(target.known[i : i + 1], target.value[i : i + 1], event)
                    loss = float(task.loss(out[name][i : i + 1], own)) if bool(own.known) else float("nan")
                    each[name].append(loss)
    model.train(training)
    return patients, {name: np.array(values) for name, values in each.items()}


def of_fold(model: Learner, data: FoldData, held: Sequence[str]) -> Losses:
    """The losses of a fold's training patients and of the `held` ones, who had no part in it (its test part)."""
    from nsclc_mtl.bags.datamodule import loader

    train = list(data.parts["train"])
    ids = [*train, *held]
    patients, of = losses_of(model, loader(data.manifest, ids, data.fitted, data.cache, data.batch_size))
    sites = data.manifest.patients["site"].loc[patients].fillna("").astype(str).tolist()
    return Losses(patients, np.arange(len(ids)) < len(train), of, sites)


def attacks(told: Sequence[Losses], draws: int = 1000, seed: int = 0) -> list[Attack]:
    """The attack on every task, then on all together, over the trained models of one or several folds.

    On all tasks the score of a patient is minus the mean rank of his losses on those of which his label is known, each
    among the patients of the fold. Patients are compared within fold and site, so that a site that is more difficult
    than another is no sign of membership; groups are weighed by their patients, as folds are. A group without patients
    of both kinds is left out. Intervals are percentiles of a bootstrap of patients, a patient once in all folds.
    """
    names = list(dict.fromkeys(name for one in told for name in one.of))
    each = {name: [one.of.get(name, np.full(len(one.patients), np.nan)) for one in told] for name in names}
    if len(names) > 1:
        each[ALL] = [_together([one.of[name] for name in names if name in one.of]) for one in told]
    return [_attack(name, told, losses, draws, seed) for name, losses in each.items()]


def found_at(member: np.ndarray, score: np.ndarray, weights: np.ndarray, rate: float = FALSE_ALARMS) -> np.ndarray:
    """Largest share of the members above a threshold that at most `rate` of the others are above, for every draw.

    member bool [n], score [n]: higher = rather a member, equal scores fall together. weights [draw, n]; result [draw],
    NaN where a draw lacks one of both.

    >>> member = np.array([True, True, True, False, False])
    >>> found_at(member, np.array([5.0, 4.0, 1.0, 3.0, 2.0]), np.ones((1, 5))).round(3)
    array([0.667])
    """
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.diff(score[order]) != 0, True]
    drawn = weights[:, order].astype(float)
    hits, alarms = np.cumsum(drawn * member[order], axis=1), np.cumsum(drawn * ~member[order], axis=1)
    inside, outside = hits[:, -1:], alarms[:, -1:]
    allowed = last & (alarms <= rate * outside + 1e-9)
    best = np.where(allowed, hits, 0.0).max(axis=1)
    both = (inside[:, 0] > 0) & (outside[:, 0] > 0)
    return np.divide(best, inside[:, 0], out=np.full(len(best), np.nan), where=both)


def _attack(name: str, told: Sequence[Losses], losses: Sequence[np.ndarray], draws: int, seed: int) -> Attack:
    groups = [
        (np.asarray(one.patients)[here], one.member[here], -loss[here])
        for one, loss in zip(told, losses, strict=True)
        for site in dict.fromkeys(one.sites)
        if _both(one.member[here := (np.asarray(one.sites) == site) & np.isfinite(loss)])
    ]
    members = sum(int(member.sum()) for _, member, _ in groups)
    others = sum(int((~member).sum()) for _, member, _ in groups)
    if not groups:
        nan = float("nan")
        nothing = Interval(nan, nan, nan, "no site has both training and other patients with a loss")
        return Attack(name, nothing, nothing, 0, 0, f"{name}: {nothing.reason}")
    weights = _weights(groups, draws, np.random.Generator(np.random.PCG64(seed)))
    auc = bootstrap([classes_in_order(member.astype(float), score) for _, member, score in groups], weights, True)
    found = bootstrap([partial(found_at, member, score) for _, member, score in groups], weights, True)
    told_of = Attack(name, auc.interval(), found.interval(), members, others, "")
    return Attack(name, told_of.auc, told_of.found, members, others, _reading(told_of))


def _weights(
    groups: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], draws: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """How often each patient of each group is drawn: members and others apart, since their numbers are no chance."""
    if repeated([list(patients) for patients, _, _ in groups]):
        # who is in several folds is drawn once for all of them, a member in some and none in another
        people = {p: i for i, p in enumerate(sorted({p for patients, _, _ in groups for p in patients.tolist()}))}
        drawn = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
        return [drawn[:, [people[p] for p in patients.tolist()]] for patients, _, _ in groups]
    made = []
    for patients, member, _ in groups:
        own = np.zeros((draws, len(patients)), np.int64)
        for kind in (member, ~member):
            n = int(kind.sum())
            own[:, kind] = rng.multinomial(n, np.full(n, 1 / n), size=draws)
        made.append(own)
    return made


def _together(losses: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the known tasks of the rank of a patient's loss, 0 to 1, [patient]; NaN where none is known."""
    ranks = []
    for loss in losses:
        known, rank = np.isfinite(loss), np.full(len(loss), np.nan)
        rank[known] = midranks(loss[known]) / max(1, known.sum())
        ranks.append(rank)
    stacked = np.stack(ranks)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))


def _both(member: np.ndarray) -> bool:
    return bool(member.any()) and not bool(member.all())


def _reading(attack: Attack) -> str:
    """One sentence for who has not read of attacks."""
    auc, found = attack.auc, attack.found
    told = f"{attack.task}: a training patient has a smaller loss than another with chance {auc.value:.2f}"
    if np.isnan(auc.lo) and not auc.agree:
        return f"{told}, of which no interval can be had ({auc.reason})"
    band = auc.reason if auc.agree else f"{auc.lo:.2f}, {auc.hi:.2f}"
    told += f" [{band}]; at false alarms for a tenth of the others {100 * found.value:.0f} % are found"
    if auc.above(0.5):
        return f"{told}: the model gives away who trained it; fewer rounds, more weight decay or federated.privacy help"
    if auc.below(0.5):
        return f"{told}: training patients are the more difficult ones, which is no sign of learning by heart"
    return f"{told}: this attack finds nothing, which is no proof that a stronger one would not"
