"""How much each modality or expert counted, patient by patient: `fusion_weights.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.learner import Learner

FILE = "fusion_weights.csv"
COLUMNS = ("patient_id", "fold", "member", "task", "part", "weight")


def table(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any, fold: int) -> pd.DataFrame:
    """Rows of `fusion_weights.csv`: patient_id, fold, member, task, part, weight; none where the fusion has no weights.

    `part` is a modality or an expert. Members stand by themselves, not as a mean: expert 0 of one is not expert 0 of
    another. `data` has the `fitted` and the `cache` to read with.
    """
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    tables = []
    if not ids or not any(member.fusion.weighed(task) for member in members for task in member.fusion.tasks):
        return pd.DataFrame(columns=list(COLUMNS))
    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache):
            batch = moved(batch, members[0].device)
            for number, member in enumerate(members):
                for task, weight in member.fusion.weights_of(member.embed(batch), batch.present).items():
                    wide = pd.DataFrame(weight.float().cpu().numpy(), batch.patients, list(member.fusion.weighed(task)))
                    rows = wide.rename_axis("patient_id").reset_index().melt("patient_id", None, "part", "weight")
                    tables.append(rows.assign(fold=fold, member=number, task=task))
    return pd.concat(tables)[list(COLUMNS)].sort_values(["member", "task"], kind="stable")


def save(rows: pd.DataFrame, path: Any) -> None:
    """Writes the table to `path`."""
    rows.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
