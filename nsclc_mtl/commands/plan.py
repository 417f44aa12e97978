"""What a command would do, found out without doing it: for `--dry-run`, and for what is worth copying ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nsclc_mtl.commands.job import Job
from nsclc_mtl.commands.slide_features import feature_file
from nsclc_mtl.commands.slides import open_job, tile_file
from nsclc_mtl.lease import holder_of
from nsclc_mtl.records import DataFault, ItemFault, ItemSkip

State = Callable[[Job], str]


def to_tile(job: Job, slides: Mapping[str, Any], out: Path) -> str:
    """`todo`, `kept`, `empty` (kept, without a tile) or `held` (by another process). Raises ItemFault `absent`."""
    from nsclc_mtl.features import store

    path, digest = tile_file(job, slides, out)
    if store.is_complete(path, digest):
        return "kept" if len(store.read_tiles(path)) else "empty"
    return "held" if holder_of(path.with_suffix(".lease")) else "todo"


def to_extract(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
) -> str:
    """The same of the features of a slide; those that somebody else made are kept."""
    from nsclc_mtl.features import export, store
    from nsclc_mtl.features.backbones import feature_key

    if job.features:
        return "kept"
    tiles = to_tile(job, slides, out)
    if tiles in ("empty", "held"):
        return tiles
    path, digest = feature_file(job, feature_key(slides, backbone, stain), tile_file(job, slides, out)[1], out)
    if tiles == "kept" and store.is_complete(path, digest) and all(export.is_complete(kind, path) for kind in also):
        return "kept"
    return "held" if holder_of(path.with_suffix(".lease")) else "todo"


def to_encode(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any] | None,
    also: Sequence[str],
    encoder: Mapping[str, Any],
) -> str:
    """The same of the vector of a slide, and of the features that it is made of."""
    from nsclc_mtl.commands.slide_vectors import features_of, vector_file
    from nsclc_mtl.features import store
    from nsclc_mtl.features.backbones import feature_key

    before = to_extract(job, slides, backbone, out, stain, also)
    if before != "kept":
        return before
    key = feature_key(slides, backbone, stain)
    path, digest = vector_file(job, key, features_of(job, key, out), encoder, out)
    if store.is_complete(path, digest):
        return "kept"
    return "held" if holder_of(path.with_suffix(".lease")) else "todo"


class Listing:
    """The list of a dry run, in the place of a run's account."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.refused: list[tuple[str, ItemFault]] = []

    def not_done(self, item: str, fault: ItemFault) -> None:
        """Notes an item that would not be done."""
        self.refused.append((item, fault))

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text)

    def slides(self, jobs: Sequence[Job], state: State, slides: Mapping[str, Any]) -> int:
        """Prints a line a slide and their number; the exit code that the command would end with."""
        count = dict.fromkeys(("todo", "kept", "empty", "held"), 0)
        for job in jobs:
            try:
                found = state(job)
                if found == "todo" and not job.features:
                    open_job(job, slides).close()
            except ItemFault as fault:
                self.not_done(job.slide_id, fault)
            except (DataFault, OSError) as wrong:
                self.not_done(job.slide_id, ItemFault("unreadable", str(wrong)))
            else:
                count[found] += 1
                print(f"{found:8}{job.slide_id}")
        for item, why in self.refused:
            print(f"{'skipped' if isinstance(why, ItemSkip) else 'refused':8}{item}: {why.reason}: {why}")
        failed = sum(not isinstance(why, ItemSkip) for _, why in self.refused)
        kept = count["kept"] + count["empty"]
        print(
            f"{self.what}: {count['todo']} to do, {kept} kept ({count['empty']} of them without a tile), "
            f"{count['held']} with another process, {failed} refused, {len(self.refused) - failed} skipped; "
            "nothing was written"
        )
        done = count["todo"] + count["kept"] + count["held"]
        return (4 if done else 3) if failed else 3 if not done and (count["empty"] or self.refused) else 0
