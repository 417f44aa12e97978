"""Which slides a run is about: those below a folder, or those that a cohort lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from nsclc_mtl.commands.job import Job
from nsclc_mtl.records import DataFault, ItemFault, ItemSkip

FEATURE_FILES = frozenset({".h5", ".hdf5", ".npz", ".pt", ".pth"})


class Account(Protocol):
    """Who is told of slides that cannot be worked on: a run, or the list of a dry run."""

    def not_done(self, item: str, fault: ItemFault) -> None:
        """Notes an item with its reason."""

    def say(self, text: str) -> None:
        """Tells the user a line."""


def in_folder(folder: Path, mpp: float | None, account: Account) -> list[Job]:
    """All slides below a folder, by known suffixes; two that would share a slide_id are failed by name.

    A DICOM series counts once, whatever the number of its files. PNG and JPEG pictures count only where their scale is
    stated (`mpp`) and nothing else is there: beside slides they are thumbnails, skipped by name where `mpp` might mean
    them. Raises DataFault where the folder does not exist or holds no slide.
    """
    from nsclc_mtl.slides.reader import PICTURE_SUFFIXES, SUFFIXES, one_a_series

    if not folder.is_dir():
        raise DataFault(f"no folder '{folder}'; give the folder of slides: mtl tile DIR")
    found: dict[str, list[Path]] = {}
    listed = list(_files(folder))
    slides = [file for file in listed if file.suffix.lower() in SUFFIXES]
    if dicom := [file for file in slides if file.suffix.lower() == ".dcm"]:
        slides = [file for file in slides if file not in set(dicom)] + one_a_series(dicom)
    pictures = [file for file in listed if file.suffix.lower() in PICTURE_SUFFIXES]
    if mpp is not None and not slides:
        slides, pictures = pictures, []
    elif mpp is not None:
        for file in pictures:
            told = f"'{file.relative_to(folder)}' lies beside slides and is taken for a thumbnail; "
            told += "a picture that is a slide goes into a folder without others"
            account.not_done(file.relative_to(folder).as_posix().replace("/", "__"), ItemSkip("picture", told))
    for file in slides:
        slide_id = file.relative_to(folder).with_suffix("").as_posix().replace("/", "__")
        found.setdefault(slide_id, []).append(file)
    if not found and pictures:
        raise DataFault(f"only PNG and JPEG pictures below '{folder}', which state no um/px: set slides.mpp=0.5, say")
    if not found:
        raise DataFault(f"no slides below '{folder}': files with {' '.join(sorted(SUFFIXES))} are looked for")
    jobs = []
    for slide_id, files in sorted(found.items()):
        if len(files) > 1:
            names = ", ".join(f"'{file.relative_to(folder)}'" for file in files)
            account.not_done(
                slide_id, ItemFault("id_collision", f"{names} would all be called '{slide_id}'; rename all but one")
            )
            continue
        jobs.append(Job(slide_id, str(files[0]), mpp, "slides.mpp" if mpp is not None else "metadata"))
    return jobs


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, links followed, each real folder once: loops of links end."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where) / name for name in sorted(files) if not name.startswith("."))


def of_cohort(cohort: Mapping[str, Any], mpp: float | None, account: Account, with_features: bool = False) -> list[Job]:
    """The slides that a cohort's bag modalities list (`cohort["root"]` is set).

    Feature files of other tools are skipped by name, or, `with_features`, become jobs that name them.
    """
    from nsclc_mtl.tables.read import MISSING, read_indexed

    jobs: dict[str, Job] = {}
    root = Path(cohort["root"])
    for file in tables_of(cohort):
        table = read_indexed(root / file, "slide_id")
        if "path" not in table:
            raise DataFault(f"'{file}' has no column 'path'; it names each slide's file, relative to the cohort's root")
        for slide_id, row in table.iterrows():
            slide_id = str(slide_id)
            if slide_id != Path(slide_id).name or slide_id.startswith("."):
                raise DataFault(f"'{file}': slide_id '{slide_id}' cannot be a file name; leave out / and leading dots")
            if with_features and Path(row["path"]).suffix.lower() in FEATURE_FILES:
                path = str(root / row["path"])
                jobs[slide_id] = Job(slide_id, path, features=path)
                continue
            if Path(row["path"]).suffix.lower() in FEATURE_FILES:
                account.not_done(slide_id, ItemSkip("features_given", f"'{file}' names a feature file for this slide"))
                continue
            stated = str(row.get("mpp", "")).strip()
            try:
                value = None if stated in MISSING else float(stated)
            except ValueError:
                account.not_done(
                    slide_id, ItemFault("mpp_implausible", f"'{file}' says mpp '{stated}', which is no number")
                )
                continue
            source = f"{file}" if value is not None else "slides.mpp" if mpp is not None else "metadata"
            drawn = str(row.get("roi", "")).strip()
            roi = None if drawn in MISSING else str(root / drawn)
            path = str(root / row["path"])
            jobs[slide_id] = Job(slide_id, path, mpp if value is None else value, source, roi=roi)
    return list(jobs.values())


def tables_of(cohort: Mapping[str, Any]) -> list[str]:
    """The tables of slides that a cohort's bag modalities name, each once."""
    modalities = (cohort.get("modalities") or {}).values()
    return list(dict.fromkeys(spec.get("table", "slides.csv") for spec in modalities if spec["kind"] == "bag"))
