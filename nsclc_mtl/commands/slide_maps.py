"""What `mtl predict` tells of a patient's slides: maps by task, how they are spread, and what deletion says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.records import Fault, Features, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.commands.explain import Explained

_SPREAD = ("entropy", "effective_tiles", "moran_i", "moran_expected", "moran_p", "reason")
NOT_SLIDES = {".h5", ".hdf5", ".npz", ".pt", ".pth"}  # slides.csv may name feature files


def checked(options: Mapping[str, Any]) -> None:
    """Raises UsageFault for words of `explain` that are none."""
    level, scale = options["level"], options["scale"]
    if level != "thumbnail" and not (isinstance(level, (int, float)) and level > 0):
        raise UsageFault(f"explain.level={level} is neither thumbnail nor a scale in um/px, such as 1.0")
    if scale not in ("percentile", "raw"):
        raise UsageFault(f"explain.scale={scale} is neither percentile nor raw")
    if int(options["deletion"]) < 0 or int(options["deletion"]) == 1:
        raise UsageFault(f"explain.deletion={options['deletion']}: give 0 (none) or 2 and more steps")


@dataclass
class Told:
    """What is told of a patient's slides besides the maps."""

    rows: list[dict[str, Any]]  # of heterogeneity.csv, one a slide and map
    whole: list[dict[str, Any]]  # of heterogeneity-patients.csv, one a map
    curves: pd.DataFrame | None  # of deletion.csv
    slides: int


def maps(of: Explained, modality: str) -> Told:
    """Writes the maps of every slide of the patient, and tells how they are spread and what deletion says of them.

    Attention of encoders that have none is left out, and their influence is the gradient's length.
    """
    from nsclc_mtl.explain import deletion, influence
    from nsclc_mtl.features import store

    looked, moved = influence.tiles(of.learner, of.batch, modality)
    scores = {f"influence:{task}": moved[task] for task in of.tasks}
    if looked is not None:
        scores = {"attention": looked, **scores}
    highest = {what: float(values.max()) for what, values in scores.items()}  # raw colours of all slides alike
    rows: list[dict[str, Any]] = []
    sizes: list[int] = []
    touching = [np.zeros((0, 2), np.int64)]
    for path in map(Path, of.manifest.bags[modality][of.batch.patients[0]]):
        slide = store.read(path, _mpp(of, path.stem))
        begin = sum(sizes)
        sizes.append(len(slide))
        here = {what: values[begin : begin + len(slide)] for what, values in scores.items()}
        pairs = _pairs(slide)
        touching.append(pairs + begin)
        rows += _spread(of, modality, path.stem, pairs, here, scores)
        _write(of, path.stem, slide, here, highest)
    slide_of = np.repeat(np.arange(len(sizes)), sizes)
    whole = _over_slides(of, modality, np.concatenate(touching), slide_of, scores, rows)
    told = None
    if steps := int(of.options["deletion"]):
        told = deletion.curves(of.learner, of.batch, modality, scores, steps, int(of.options["draws"]))
        told = told[told["task"].isin(of.tasks)]
    return Told(rows, whole, told, len(sizes))


def _pairs(slide: Features) -> np.ndarray:
    """Tiles that touch, int64 [pair, 2]; none where nobody knows where they lie."""
    from nsclc_mtl.explain import heterogeneity

    lie = slide.attrs.get("coords_unit") in ("level0_px", "um")
    return heterogeneity.neighbours(slide.coords) if lie else np.zeros((0, 2), np.int64)


def _spread(
    of: Explained, modality: str, slide_id: str, pairs: np.ndarray, here: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of heterogeneity.csv: one a map of this slide."""
    rows = []
    for what, scores in here.items():
        kind, _, task = what.partition(":")
        total = float(whole[what].sum())
        row = {"modality": modality, "slide_id": slide_id, "map": kind, "task": task, "tiles": len(scores)}
        share = float(scores.sum()) / total if total > 0 else np.nan
        rows.append({**row, "share_of_patient": share, **_numbers(of, scores, pairs)})
    return rows


def _over_slides(
    of: Explained, modality: str, pairs: np.ndarray, slide_of: np.ndarray, whole: Mapping[str, np.ndarray],
    rows: list[dict[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of heterogeneity-patients.csv: one a map, over all tiles of the patient.

    slide_of: [tile] number of its slide. rows: of the slides; the numbers of the only slide are those of the patient.
    """
    out = []
    slides = len(rows) // max(1, len(whole))
    for k, (what, scores) in enumerate(whole.items()):
        kind, _, task = what.partition(":")
        row = {"modality": modality, "map": kind, "task": task, "slides": slides, "tiles": len(scores)}
        one = {word: rows[k][word] for word in _SPREAD} if slides == 1 else _numbers(of, scores, pairs, slide_of)
        out.append({**row, **one})
    return out


def _numbers(
    of: Explained, scores: np.ndarray, pairs: np.ndarray, slide_of: np.ndarray | None = None
) -> dict[str, float | str]:
    """How the scores of some tiles are spread, by the words of `_SPREAD`."""
    from nsclc_mtl.explain import heterogeneity

    even, many = heterogeneity.entropy(scores), heterogeneity.effective_tiles(scores)
    found = heterogeneity.moran(scores, pairs, int(of.options["permutations"]), slide=slide_of)
    reasons = dict.fromkeys(score.reason for score in (even, many, found.value) if score.reason)
    numbers = (float(even), float(many), float(found.value), found.expected, float(found.p), "; ".join(reasons))
    return dict(zip(_SPREAD, numbers, strict=True))


def _write(
    of: Explained, slide_id: str, slide: Features, here: Mapping[str, np.ndarray], highest: Mapping[str, float]
) -> None:
    from nsclc_mtl.explain import tile_scores

    size = int(slide.attrs.get("patch_size_level0") or 0)
    if slide.attrs.get("coords_unit") != "level0_px" or not size:
        of.run.say(f"{slide_id}: no maps, its coordinates are not level-0 pixels with a tile size")
        return
    tile_scores.table(of.folder / f"{slide_id}-tiles.csv", slide.coords, size, here)
    tile_scores.qupath(of.folder / f"{slide_id}-tiles.geojson", slide.coords, size, here)
    if of.options["pictures"]:
        _draw(of, slide_id, slide.coords, here, size, highest)


def _draw(
    of: Explained, slide_id: str, coords: np.ndarray, maps: Mapping[str, np.ndarray], size: int,
    highest: Mapping[str, float],
) -> None:  # fmt: skip
    """Maps over the slide itself, where the slide is at hand; features alone give tables and GeoJSON only. highest: map
    -> the highest score of all slides of the patient."""
    from nsclc_mtl.commands.cohort import cohort_root
    from nsclc_mtl.explain import attention, region, tile_scores
    from nsclc_mtl.slides.reader import open_slide

    if of.manifest.slides is None or slide_id not in of.manifest.slides.index:
        return  # spots: a section has no picture of its own here
    path = cohort_root(of.read) / of.manifest.slides.loc[slide_id]["path"]
    if path.suffix in NOT_SLIDES:
        return
    try:
        with open_slide(path, _mpp(of, slide_id)) as slide:
            # a small section is drawn finer, so that its picture is not a mosaic of single pixels
            finest = max(slide.dimensions) * slide.mpp / 900
            thumbnail = slide.thumbnail(min(float(of.options["um_per_px"]), max(finest, slide.mpp)))
            shrink = slide.dimensions[0] / thumbnail.shape[1]
            for what, scores in maps.items():
                name = f"{slide_id}-{what.replace(':', '-')}"
                title = f"{slide_id}: {tile_scores.words_of(what)}"
                attention.heatmap(
                    thumbnail, coords, scores, size, shrink, of.folder / f"{name}.png",
                    title=title, legend=of.options["scale"], what=what, um_per_px=shrink * slide.mpp,
                    highest=highest[what],
                )  # fmt: skip
                strip = of.folder / f"{name}-tiles.png"
                attention.top_tiles(slide, coords, scores, size, strip, k=of.options["tiles"], what=what, title=title)
                if of.options["level"] != "thumbnail":
                    region.pyramid(
                        slide, coords, scores, size, float(of.options["level"]), of.folder / f"{name}.tiff",
                        tile_scores.words_of(what), of.options["scale"], highest[what],
                    )  # fmt: skip
    except Fault as fault:
        of.run.say(f"{slide_id}: no pictures, {fault}")


def _mpp(of: Explained, slide_id: str) -> float | None:
    """The um/px that slides.csv gives for a slide."""
    if of.manifest.slides is None or slide_id not in of.manifest.slides.index:
        return None
    given = of.manifest.slides.loc[slide_id].get("mpp")
    return float(str(given)) if given else None


class Found:
    """What was found in all explained patients, and what it took: the tables below `explanations/`."""

    def __init__(self, part: Mapping[str, tuple[str, int]]) -> None:
        self.part = part  # patient -> (test, external or train; the fold of the model that explains him)
        self.rows: list[dict[str, Any]] = []
        self.whole: list[dict[str, Any]] = []
        self.curves: list[pd.DataFrame] = []
        self.slides, self.seconds = 0, 0.0

    def add(self, of: Explained, modality: str) -> None:
        """Explains one patient's slides."""
        began = perf_counter()
        told = maps(of, modality)
        patient = of.batch.patients[0]
        part, fold = self.part[patient]
        who: dict[str, Any] = {"patient_id": patient, "fold": fold, "part": part}
        self.rows += [{**who, **row} for row in told.rows]
        self.whole += [{**who, **row} for row in told.whole]
        if told.curves is not None:
            self.curves.append(told.curves.assign(**who, modality=modality))
        self.slides += told.slides
        self.seconds += perf_counter() - began

    def save(self, folder: Path) -> None:
        """`heterogeneity.csv` and `-patients.csv`, `deletion.csv`, `deletion-gaps.csv`, a figure a task; if any."""
        import pandas as pd

        from nsclc_mtl.explain import deletion
        from nsclc_mtl.report.sections.maps import curves_of

        if not self.rows:
            return
        folder.mkdir(parents=True, exist_ok=True)
        who = ["patient_id", "fold", "part", "modality"]
        _csv(pd.DataFrame(self.rows), folder / "heterogeneity.csv")
        _csv(pd.DataFrame(self.whole), folder / "heterogeneity-patients.csv")
        if not any(map(len, self.curves)):
            return
        told = pd.concat(self.curves, ignore_index=True)[[*who, *deletion.COLUMNS]]
        _csv(told, folder / "deletion.csv")
        _csv(deletion.areas(told, who), folder / "deletion-gaps.csv")
        for figure in curves_of(told):
            head = '<?xml version="1.0" encoding="utf-8"?>\n'
            (folder / f"{figure.name}.svg").write_text(head + figure.svg + "\n", encoding="utf-8")
            _csv(figure.data, folder / f"{figure.name}.csv")


def _csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n", float_format="%.7g")
