"""Whether one can tell from a simulated federation's models who trained them: losses kept fold by fold, then judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.sealed import written
from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.federated.membership import Losses
    from nsclc_mtl.federated.site import Begun

RECORDS = "federation"  # folder of a run: what the server kept of each fold


def keep_losses(
    settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, number: int, begun: Mapping[str, Begun],
    path: Path,
) -> None:  # fmt: skip
    """`federation/membership<k>.json`: what the fold's models lose on training and on test patients.

    Without ids: each patient has a number, dealt at random, by which he is known as one in all folds, as the
    bootstrap needs. `begun` are the trained models of the sites; the centralised one is read from its folder.
    """
    from nsclc_mtl.federated.membership import of_fold

    ways: dict[str, list[Losses]] = {"federated": []}
    for one in begun.values():
        ways["federated"].append(
            of_fold(one.learner, one.data, list(one.rows.loc[one.rows["part"] == "test", "patient_id"]))
        )
    if (found := _centralised(settings, manifest, splits[splits["fold"] == number], path)) is not None:
        ways["centralised"] = [found]
    numbers = _numbers(splits, int(settings["seed"]))
    text = {way: [_without_ids(one, numbers) for one in told] for way, told in ways.items()}
    with written(path / RECORDS / f"membership{number}.json") as aside:
        aside.write_text(json.dumps(text, allow_nan=False) + "\n", encoding="utf-8")


def _centralised(settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, path: Path) -> Losses | None:
    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import Share
    from nsclc_mtl.commands import fold_files
    from nsclc_mtl.commands.members import fold_data
    from nsclc_mtl.federated.membership import of_fold

    folder = path / "centralised" / f"fold{int(rows['fold'].iloc[0])}"
    if not (folder / "finished.json").is_file():
        return None
    members, fitted, _, _ = fold_files.load_fold(settings, folder)
    data = fold_data(settings, manifest, rows, BagCache(), Share(), fitted)
    return of_fold(members[0].eval(), data, _tested(rows))


def _tested(rows: pd.DataFrame) -> list[str]:
    return list(rows.loc[rows["part"] == "test", "patient_id"])


def _numbers(splits: pd.DataFrame, seed: int) -> dict[str, int]:
    """Patient -> a number in no order that tells of him, the same in every fold."""
    import numpy as np

    ids = sorted(set(splits["patient_id"]))
    dealt = np.random.default_rng([seed, *b"membership"]).permutation(len(ids))
    return dict(zip(ids, map(int, dealt), strict=True))


def _without_ids(told: Losses, numbers: Mapping[str, int]) -> dict[str, Any]:
    order = sorted(range(len(told.patients)), key=lambda i: numbers[told.patients[i]])
    return {
        "patient": [numbers[told.patients[i]] for i in order],
        "site": [told.sites[i] for i in order],
        "member": [bool(told.member[i]) for i in order],
        "loss": {task: [finite(float(of[i])) for i in order] for task, of in told.of.items()},
    }


def attacked(run: Path, folds: Sequence[int], draws: int, seed: int) -> list[dict[str, Any]]:
    """Rows {task, metric, site, measure, way, value, lo, hi, members, others, reason, reading} of the self-test."""
    from nsclc_mtl.federated.membership import attacks
    from nsclc_mtl.report.federated.ways import ALL, CENTRALISED, FEDERATED

    files = [file for fold in folds if (file := run / RECORDS / f"membership{fold}.json").is_file()]
    told = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not told or len(told) < len(folds):  # an older start may have left folds without one
        return []
    rows = []
    for way in (FEDERATED, CENTRALISED):
        losses = [_joined(fold[way]) for fold in told if way in fold]
        sites = sorted({site for one in losses for site in one.sites}) if way == FEDERATED else []
        for site in (ALL, *sites):
            some = losses if site == ALL else [_at_site(one, site) for one in losses]
            for attack in attacks(some, draws, seed) if some else ():
                for metric, at in (("membership_auc", attack.auc), ("membership_found", attack.found)):
                    rows.append(
                        {"task": attack.task, "metric": metric, "site": site, "measure": "within", "way": way}
                        | {"value": finite(at.value), "lo": finite(at.lo), "hi": finite(at.hi)}
                        | {"members": attack.members, "others": attack.others}
                        | {"reason": at.reason, "reading": attack.reading}
                    )
    return rows


def _joined(parts: Sequence[Mapping[str, Any]]) -> Losses:
    """One fold's losses of all its sites."""
    import numpy as np

    from nsclc_mtl.federated.membership import Losses

    tasks = dict.fromkeys(task for part in parts for task in part["loss"])
    of = {
        task: np.array([math.nan if v is None else v for part in parts for v in _loss(part, task)], float)
        for task in tasks
    }
    return Losses(
        [str(number) for part in parts for number in part["patient"]],
        np.array([member for part in parts for member in part["member"]], bool),
        of,
        [site for part in parts for site in part["site"]],
    )


def _loss(part: Mapping[str, Any], task: str) -> list[float | None]:
    return part["loss"].get(task, [None] * len(part["patient"]))


def _at_site(told: Losses, site: str) -> Losses:
    import numpy as np

    from nsclc_mtl.federated.membership import Losses

    here = np.array([own == site for own in told.sites], bool)
    of = {task: loss[here] for task, loss in told.of.items()}
    return Losses(
        [p for p, own in zip(told.patients, here, strict=True) if own], told.member[here], of, [site] * int(here.sum())
    )


def finite(value: Any) -> float | None:
    """A number that JSON has, None for any other."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
