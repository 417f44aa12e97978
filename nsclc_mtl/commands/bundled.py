"""Reading a bundle (`mtl bundle`): nothing of it is believed before every file is the one that was written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import bundle_shape
from nsclc_mtl.config import permitted
from nsclc_mtl.records import IntegrityFault, UsageFault

if TYPE_CHECKING:
    from torch import Tensor

    from nsclc_mtl.report.held_out import HeldOut

SCHEMA = 1  # of model.json; raised when older programs could not read a bundle, or would read it wrongly
MODEL, MANIFEST, CARD, COHORT, FITTED = "model.json", "manifest.sha256", "card.md", "cohort.json", "fitted.json"
KNOWN = re.compile(r"model\.json|cohort\.json|card\.md|fold\d+/fitted\.json|fold\d+/model\d+\.safetensors")
"""The files that a bundle may hold: no other name is read, listed or not."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_AGAIN = "take the bundle again from where it was made"


def at(ckpt: Any) -> Path | None:
    """The bundle that `ckpt` names, by its folder, one of its folds or the run of `mtl bundle`; None where it is none
    (a run of training, or nothing)."""
    path = Path(str(ckpt))
    within = () if (path / "splits.csv").is_file() else (path / "bundle",)
    return next((p for p in (path, path.parent, *within) if _looks_like_one(p)), None)


def _looks_like_one(folder: Path) -> bool:
    if not folder.is_dir() or (folder / "splits.csv").is_file():
        return False  # a run has both a configuration and a split
    return os.path.lexists(folder / MODEL) or (os.path.lexists(folder / MANIFEST) and not (folder / FITTED).exists())


def opened(folder: Path) -> dict[str, Any]:
    """`model.json` of a bundle, every file of which is the one that was written.

    Raises IntegrityFault where a file was changed, is missing, was added or is no file of a bundle, where it lies
    elsewhere (a link), where the bundle is of another schema, where any JSON of it has another shape than `mtl bundle`
    writes (`bundle_shape`), or names what configuration may not name.
    """
    listed = _listed(folder)
    there = set(_files(folder))
    for name in sorted(there - listed.keys() - {MANIFEST}):
        raise IntegrityFault(f"the bundle '{folder.name}' holds '{name}', which {MANIFEST} does not list; {_AGAIN}")
    for name in listed:
        if name not in there:
            raise IntegrityFault(f"the bundle '{folder.name}' lacks '{name}'; {_AGAIN}")
        _read(folder, name, listed)
    content = _json(folder, MODEL, listed)
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(content, dict) or schema is None:
        raise IntegrityFault(f"'{folder.name}/{MODEL}' is not the description of a bundle; {_AGAIN}")
    if type(schema) is not int or schema != SCHEMA:  # true is 1 too
        raise IntegrityFault(
            f"the bundle '{folder.name}' has schema {schema!r}, this program reads {SCHEMA}: use the version of "
            f"nsclc-mtl that made it ({content.get('version')})"
        )
    every = {name: _json(folder, name, listed) for name in sorted(listed) if name.endswith(".json")}
    folds = {int(name.split("/")[0][4:]): held for name, held in every.items() if name.endswith(FITTED)}
    if wrong := bundle_shape.checked(content, every.get(COHORT), folds):
        raise IntegrityFault(f"the bundle '{folder.name}' is not as `mtl bundle` writes it: {wrong}; {_AGAIN}")
    names = content.get("derived") or {}
    if not all(re.fullmatch(r"[\w.+@-]*", str(v)) and v != ".." for v in names.values()):
        raise IntegrityFault(f"'{folder.name}/{MODEL}' names folders that this program does not make; {_AGAIN}")
    for name, held in every.items():
        _harmless(held, f"{folder.name}/{name}")
    return content


def sha256(folder: Path) -> str:
    """What stands for the whole bundle: the SHA-256 of its manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def settings_of(fold: Path) -> dict[str, Any]:
    """The settings that a fold of a bundle was trained with. Raises what `opened` raises."""
    content = opened(fold.parent)
    own = content["folds"].get(fold.name.removeprefix("fold"))
    if not isinstance(own, dict):
        raise IntegrityFault(f"the bundle '{fold.parent.name}' describes no '{fold.name}'; {_AGAIN}")
    return {**content["config"], **(own.get("settings") or {})}


def held_out(folder: Path) -> dict[str, HeldOut]:
    """Task -> how the folds did on the patients whom they held out; empty in bundles of before 28 November 2026.

    Raises what `opened` raises.
    """
    from nsclc_mtl.report.held_out import HeldOut

    return {str(task): HeldOut.load(said) for task, said in (opened(folder).get("held_out") or {}).items()}


def fitted(fold: Path) -> Any:
    """What a fold's `fitted.json` holds. Raises IntegrityFault where it is not the file that was written."""
    return _json(fold.parent, f"{fold.name}/{FITTED}", _listed(fold.parent))


def weights(path: Path) -> dict[str, Tensor]:
    """The weights in `fold<k>/model<m>.safetensors` of a bundle. Raises IntegrityFault where it is not that file."""
    from safetensors.torch import load

    folder = path.parent.parent
    raw = _read(folder, f"{path.parent.name}/{path.name}", _listed(folder))
    try:
        return load(raw)
    except Exception as error:  # a type of its own, and others for what is no such file; it never executes any
        raise IntegrityFault(f"'{path.parent.name}/{path.name}' is no safetensors file; {_AGAIN}") from error


def weights_sha256(ckpt: Any) -> dict[str, str]:
    """`fold<k>/model<m>` -> SHA-256 of its weights, of a bundle or a run, or of one fold: the same of both.

    See `checkpoint.weights_sha256`. Nothing is executed. Raises IntegrityFault where a file is not ours.
    """
    from nsclc_mtl.commands import checkpoint

    path = Path(str(ckpt))
    path = path if path.is_dir() else path.parent
    packed = at(path) is not None
    folds = [path] if re.fullmatch(r"fold\d+", path.name) else sorted(path.glob("fold*"))
    return {
        f"{fold.name}/{file.stem}": checkpoint.weights_sha256(
            weights(file) if packed else checkpoint.read(file)["state_dict"]
        )
        for fold in folds
        for file in sorted(fold.glob("model*.safetensors" if packed else "model*.ckpt"))
    }


def _listed(folder: Path) -> dict[str, str]:
    """File -> SHA-256, as the manifest has it. Raises IntegrityFault on names that a bundle does not have."""
    if (folder / MANIFEST).is_symlink():
        raise IntegrityFault(f"'{folder.name}/{MANIFEST}' is a link; {_AGAIN}")
    try:
        lines = (folder / MANIFEST).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise IntegrityFault(f"'{folder.name}/{MANIFEST}' is missing or damaged; {_AGAIN}") from error
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not KNOWN.fullmatch(match[2]) or match[2] in found:
            raise IntegrityFault(
                f"'{folder.name}/{MANIFEST}' names what is no file of a bundle: '{line[66:]}'; {_AGAIN}"
            )
        found[match[2]] = match[1]
    if MODEL not in found:
        raise IntegrityFault(f"'{folder.name}/{MANIFEST}' does not list '{MODEL}'; {_AGAIN}")
    return found


def _files(folder: Path) -> Iterator[str]:
    """Every file below the folder. Raises IntegrityFault on a link or a device."""
    for place, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(place) / name
            told = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise IntegrityFault(f"'{folder.name}/{told}' is a link or no plain file; {_AGAIN}")
            if path.is_file():
                yield told


def _read(folder: Path, name: str, listed: Mapping[str, str]) -> bytes:
    """The bytes of a file, once they are those that were written: what is used is what was looked at."""
    path = folder / name
    if path.is_symlink() or path.parent.is_symlink():
        raise IntegrityFault(f"'{folder.name}/{name}' is a link; {_AGAIN}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise IntegrityFault(f"'{folder.name}/{name}' cannot be read: {error.strerror}; {_AGAIN}") from error
    if hashlib.sha256(raw).hexdigest() != listed.get(name):
        raise IntegrityFault(f"'{folder.name}/{name}' is not the file that was written (sha256 differs); {_AGAIN}")
    return raw


def _json(folder: Path, name: str, listed: Mapping[str, str]) -> Any:
    """What a JSON of the bundle says. Raises IntegrityFault where it is not the file that was written, or no JSON."""
    try:
        return json.loads(_read(folder, name, listed))
    except (ValueError, RecursionError) as error:
        word = "the description of a bundle" if name == MODEL else "the JSON that `mtl bundle` writes"
        raise IntegrityFault(f"'{folder.name}/{name}' is not {word}; {_AGAIN}") from error


def _harmless(content: Any, where: str) -> None:
    """Raises IntegrityFault where plain data names what must not be made, or an interpolation."""
    if isinstance(content, Mapping):
        if "_target_" in content:
            try:
                permitted(content["_target_"])
            except UsageFault as fault:
                raise IntegrityFault(f"'{where}': {fault}; nothing of the bundle was used") from fault
        for key, value in content.items():
            _harmless(value, where)
            if str(key).startswith("_") and key not in ("_target_", "_partial_"):
                raise IntegrityFault(f"'{where}' holds the word {key!r}, which no bundle has; nothing of it was used")
    elif isinstance(content, list):
        for value in content:
            _harmless(value, where)
    elif isinstance(content, str) and "${" in content:
        raise IntegrityFault(f"'{where}' holds an interpolation, which no bundle has; nothing of it was used")
