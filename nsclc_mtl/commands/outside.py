"""Whether patients look like those that a fold was trained on: fitted on its training patients, ranked among others.

Tables and tiles are looked at as they come in (scaled columns, the mean tile), scans and visits by what their encoder
says of them, and all together by the fused views of the tasks. Principal components of a table are no place to look:
fitted on the training patients, they spread these wider than any others, and what is new lies beside them.

A patient's score is that of the part that is furthest out. It is ranked among patients whom training did not see
(validation and calibration; no outcome enters the score), so that the flag is raised for at most the stated share of
patients like them. Where these are too few, the training patients themselves serve, each scored by what the others
taught; the network knows them, so that the flag may then be raised more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Bag, Manifest

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from nsclc_mtl.learner import Learner

FUSED = "all"  # the views of all tasks side by side
SLIDE_WORDS = ("scanner", "stain", "vendor")  # columns of slides.csv whose values a training may not know
RATE = 0.05


def rows_of(member: Learner, manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """What is judged of these patients: a table a modality, [patient who has it, dim], and `all`.

    Of an ensemble the first member speaks. `data` has the `fitted` and the `cache` to read with.
    """
    import numpy as np
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    parts: dict[str, list[pd.DataFrame]] = {}
    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache) if ids else ():
            batch = moved(batch, member.device)
            seen = member.embed(batch)
            views, _ = member.fusion(seen, present=batch.present)
            fused = torch.cat([views[name] for name in member.fusion.tasks], dim=1)
            parts.setdefault(FUSED, []).append(pd.DataFrame(fused.float().cpu().numpy(), batch.patients))
            for name, embedding in seen.items():
                if name in data.fitted.tables:
                    continue
                here = batch.present[name].cpu().numpy()
                bag = batch.inputs[name]
                told = _mean_tiles(bag, data.fitted.bags[name]) if isinstance(bag, Bag) else embedding.vector.float()
                rows = np.asarray(told.cpu())
                parts.setdefault(name, []).append(pd.DataFrame(rows, batch.patients)[here])
    found = {name: pd.concat(tables) for name, tables in parts.items()}
    for name in data.fitted.tables:
        there = set(manifest.who(name))
        if have := [p for p in ids if p in there]:
            found[name] = pd.DataFrame(data.fitted.rows(manifest, name, have, columns=True), have)
    return found


def _mean_tiles(bag: Bag, scale: Mapping[str, Any]) -> Tensor:
    """Mean tile of each patient, [patient, dim], in standard deviations of the training tiles."""
    import torch

    rows = torch.zeros(len(bag.offsets) - 1, bag.features.shape[1])
    for i, (begin, end) in enumerate(zip(bag.offsets[:-1], bag.offsets[1:], strict=True)):
        if end > begin:  # one patient at a time: only his tiles are wide
            rows[i] = bag.features[int(begin) : int(end)].float().mean(0).cpu()
    return (rows - torch.tensor(scale["mean"])) / torch.tensor(scale["sd"])


def fit(
    member: Learner, manifest: Manifest, parts: Mapping[str, Sequence[str]], data: Any, rate: float
) -> dict[str, Any]:
    """What is kept with a fold, as plain JSON types: {rate, scales, known, reference, attributes}; {} for a rate of 0.

    parts: part -> patients of the fold. `known` are the scores that new ones are ranked among.
    """
    import numpy as np

    from nsclc_mtl.trust import outside

    if rate <= 0:
        return {}
    train, held = list(parts["train"]), [*parts.get("validation", []), *parts.get("calibration", [])]
    seen = {name: t for name, t in rows_of(member, manifest, train, data).items() if len(t) >= outside.LEAST}
    scales = {name: outside.Scale.fit(table.to_numpy()) for name, table in seen.items()}
    if len(held) >= outside.enough(rate):
        reference, each = "held out", _scores(scales, rows_of(member, manifest, held, data))
    else:
        reference, each = "training", _crossed(scales, seen)
    known = each.max(axis=1).dropna().to_numpy()
    return {
        "rate": rate,
        "reference": reference,
        "known": [float(f"{v:.6g}") for v in np.sort(known)],
        "scales": {name: scale.state() for name, scale in scales.items()},
        "attributes": {
            word: sorted(set(values.explode()) - {""}) for word, values in attributes(manifest, train).items()
        },
    }


def judge(state: Mapping[str, Any], member: Learner, manifest: Manifest, ids: Sequence[str], data: Any) -> pd.DataFrame:
    """By patient: `rarity` (P of lying so far out), `furthest` (the part that does), and the percentile of each part.

    Percentiles are among the training patients, NaN for a modality that a patient lacks. Without columns where nothing
    was fitted.
    """
    import pandas as pd

    from nsclc_mtl.trust import outside

    if not state or not ids:
        return pd.DataFrame(index=pd.Index(list(ids), name="patient_id"))
    scales = {name: outside.Scale.load(s) for name, s in state["scales"].items()}
    rows = rows_of(member, manifest, ids, data)
    score = _scores(scales, rows).reindex(list(ids))
    if score.shape[1] == 0:  # training kept no column of any modality
        return pd.DataFrame(index=pd.Index(list(ids), name="patient_id"))
    made = pd.DataFrame(index=pd.Index(list(ids), name="patient_id"))
    made["rarity"] = outside.rarity(score.max(axis=1).to_numpy(), state["known"])
    made["furthest"] = score.fillna(float("-inf")).idxmax(axis=1)
    for name, scale in scales.items():
        if name in rows:
            made[name] = pd.Series(scale.percentile(rows[name].to_numpy()), rows[name].index)
    return made


def _scores(scales: Mapping[str, Any], rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    each = {n: pd.Series(scale.score(rows[n].to_numpy()), rows[n].index) for n, scale in scales.items() if n in rows}
    return pd.DataFrame(each)


def _crossed(scales: Mapping[str, Any], rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Scores of the training patients themselves, each by what the others taught."""
    import pandas as pd

    from nsclc_mtl.trust import outside

    each = {
        n: pd.Series(scale.standard(outside.crossed(rows[n].to_numpy())), rows[n].index) for n, scale in scales.items()
    }
    return pd.DataFrame(each)


def attributes(manifest: Manifest, ids: Sequence[str]) -> dict[str, pd.Series]:
    """Column of slides.csv -> values [patient] of the patients' slides (lists of text), where the cohort has it."""
    found: dict[str, Any] = {}
    if manifest.slides is None:
        return found
    slides = manifest.slides[manifest.slides["patient_id"].isin(list(ids))]
    for word in SLIDE_WORDS:
        if word in slides:
            text = slides[word].fillna("").astype(str).str.strip()
            found[word] = text.groupby(slides["patient_id"]).agg(lambda values: sorted(set(values) - {""}))
    return found
