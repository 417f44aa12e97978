"""One vector a slide by a slide encoder, after the features of its tiles; and one a patient for training.

Like the jobs before it (slides.py): idempotent, one slide at a time, under a lease, and kept where it is complete.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.commands import finding
from nsclc_mtl.commands.job import Job, Outcome, guarded, once
from nsclc_mtl.commands.slide_features import extract as extract_features
from nsclc_mtl.commands.slide_features import load as load_backbone
from nsclc_mtl.lease import Taken, Watch, holding
from nsclc_mtl.records import IntegrityFault, ItemFault, ItemSkip, UsageFault

if TYPE_CHECKING:
    from nsclc_mtl.config import Run

POLL_S = 0.2  # how often the lease of another command is looked at


def extract(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any],
    also: Sequence[str],
    encoder: Mapping[str, Any],
) -> Outcome:
    """`out/slides/<encoder>-<key8>/<slide_id>.h5`, after the features that it is made of; these come first."""
    made = Outcome(kept=True)
    if not job.features:
        made = extract_features(job, slides, backbone, out, stain, also)
        if made.reason or made.busy:
            return made
    then = guarded(job, functools.partial(_encode, job, slides, backbone, out, stain, encoder))
    if made.cost and then.cost:
        then.cost = made.cost + then.cost
    then.kept, then.laid = then.kept and made.kept, made.laid
    return then


def _encode(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any],
    encoder: Mapping[str, Any],
) -> Outcome:
    from nsclc_mtl.features import store, vectors
    from nsclc_mtl.features.backbones import feature_key

    key = feature_key(slides, backbone, stain)
    features = features_of(job, key, out)
    path, digest = vector_file(job, key, features, encoder, out)

    def make() -> int:
        vector, attrs = _see(job, features, encoder)
        vectors.write(path, vector, attrs | {"config_hash": digest, "feature_key": "" if job.features else key})
        return int(attrs["tiles"])

    made = once(path, lambda: store.is_complete(path, digest, deep=True), make)
    return Outcome(int(vectors.read(path)[1]["tiles"]), kept=True) if made is None else Outcome(made)


def features_of(job: Job, key: str, out: Path) -> Path:
    """The feature file of a slide: somebody else's, or ours under `key`. Raises ItemFault `absent`."""
    path = Path(job.features) if job.features else out / "features" / key / f"{job.slide_id}.h5"
    if not path.is_file():
        raise ItemFault("absent", f"slide '{job.slide_id}' has no features at '{path.name}'; mend its path")
    return path


def vector_file(job: Job, key: str, features: Path, encoder: Mapping[str, Any], out: Path) -> tuple[Path, str]:
    """Where the vector of a slide lies, and the digest of what it depends on: settings, and content of the features."""
    from nsclc_mtl.features import keys, layouts
    from nsclc_mtl.features.slide_encoders import slide_key

    folder = slide_key(key, encoder)
    digest = keys.config_hash({"slides": folder, "features": layouts.content_digest(features)})
    return out / "slides" / folder / f"{job.slide_id}.h5", digest


def _see(job: Job, features: Path, encoder: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """The vector of a slide, with where it comes from."""
    from nsclc_mtl.features import keys, layouts, store

    look, found = load(encoder), store.read(features)
    made_by = next((str(found.attrs[k]) for k in ("backbone", "extractor", "encoder") if k in found.attrs), "")
    if not len(found):
        raise ItemSkip("no_tissue", f"slide '{job.slide_id}' has no tile in '{features.name}'")
    _suits(job, encoder, found.attrs, made_by)
    width = found.features.shape[1]
    if look.input_dim not in (None, width):
        raise IntegrityFault(_other_width(look, made_by or features.name, width))
    if look.places and found.attrs["coords_unit"] != "level0_px":
        raise ItemFault("no_coords", f"slide '{job.slide_id}': '{features.name}' has no coordinates in level-0 pixels")
    size = found.attrs.get("patch_size_level0")
    if look.size and not size:
        raise ItemFault("no_tile_size", f"slide '{job.slide_id}': '{features.name}' has no patch_size_level0")
    vector = look(found.features.astype(np.float32), found.coords, int(size or 0))
    carried = ("slide_hash", "mpp", "tile_um", "precision", "unreadable_fraction", "stain")
    attrs = {name: found.attrs[name] for name in carried if name in found.attrs} | {
        "slide_id": job.slide_id,
        "tiles": len(found),
        "slide_encoder": look.name,
        "slide_encoder_weights_hash": look.weights_hash,
        "backbone": made_by,
        "weights_hash": str(found.attrs.get("weights_hash", "")),
        "features_sha256": layouts.content_digest(features),
        "slide_encoder_code_digest": keys.code_digest("features/slide_encoders"),
    }
    return vector, attrs


def _suits(job: Job, encoder: Mapping[str, Any], attrs: Mapping[str, Any], made_by: str) -> None:
    """Raises ItemFault where somebody else's feature file is of another backbone or of other tiles, if it says so."""
    from nsclc_mtl.features.slide_encoders import fits

    tile_um = attrs.get("tile_um") or attrs.get("tile_size_um")
    try:
        fits(encoder if made_by else {**encoder, "backbones": ()}, made_by, float(tile_um) if tile_um else None)
    except UsageFault as fault:
        raise ItemFault("other_features", f"slide '{job.slide_id}': {fault}") from fault


def ready(
    encoder: Mapping[str, Any], backbone: Mapping[str, Any], slides: Mapping[str, Any], jobs: Sequence[Job]
) -> None:
    """Raises, before any slide, what would end every one: an encoder that cannot be had, features that it cannot read.

    UsageFault where it was trained on another backbone or other tiles, IntegrityFault where a dimension is another.
    """
    from nsclc_mtl.features.slide_encoders import fits

    own = any(not job.features for job in jobs)
    if own:
        fits(encoder, str(backbone["name"]), float(slides["tile_um"]))
    look = load(encoder)
    if own and look.input_dim is not None:
        width = getattr(load_backbone(backbone, float(slides["tile_um"])), "dim", None)
        if width not in (None, look.input_dim):
            raise IntegrityFault(_other_width(look, f"backbone={backbone['name']}", int(width)))


def _other_width(look: Any, made_by: str, width: int) -> str:
    return (
        f"slide_encoder={look.name} reads {look.input_dim} features a tile, {made_by} gives {width}; take the backbone "
        "that it was trained on"
    )


def load(encoder: Mapping[str, Any]) -> Any:
    """The slide encoder, made once a process. Raises what ends a run: usage, integrity."""
    return _encoder(json.dumps(dict(encoder), sort_keys=True))


@functools.lru_cache(maxsize=1)
def _encoder(settings: str) -> Any:
    from nsclc_mtl.config import build

    return build(json.loads(settings))


def write_patients(cohort: Mapping[str, Any], done: Collection[str], folder: Path, run: Run) -> None:
    """`<cohort>-<table>.npz` in `folder` for each table of slides: patient_id -> mean over the slides that are done.

    `kind: vector` without a file reads it. Slides of a folder (`slides.dir`) belong to no patient and get none.
    """
    from nsclc_mtl.features import vectors
    from nsclc_mtl.tables.read import read_indexed

    finished = set(done)
    for table in finding.tables_of(cohort):
        listed = read_indexed(Path(cohort["root"]) / table, "slide_id")
        of: dict[str, list[Path]] = {}
        for slide_id, patient in listed.get("patient_id", {}).items():
            if str(slide_id) in finished and str(patient).strip():
                of.setdefault(str(patient), []).append(folder / f"{slide_id}.h5")
        if of:
            path = folder / vectors.patients_file(str(cohort.get("name") or "cohort"), table)
            write = functools.partial(vectors.write_patients, path, vectors.of_patients(of))
            _in_turn(path.with_suffix(".lease"), write)  # another command on the same slides may be writing it
            run.say(f"vectors of {len(of)} patients: {path}")


def _in_turn(path: Path, work: Callable[[], None]) -> None:
    """Works under the lease at `path`, once nobody else has it; that of a process that died is taken over."""
    watch = Watch()
    while True:
        try:
            return holding(path, work)
        except Taken:
            watch.is_free(path)
            time.sleep(POLL_S)
