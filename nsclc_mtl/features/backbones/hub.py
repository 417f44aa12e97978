"""Weights that lie on the hub: fetched once, from then on a local file like any other.

The content of that file enters the key of the features, so every process of a run reads the same one. Importing this
costs no torch: training asks only for the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsclc_mtl.records import UsageFault

FILES = ("model.safetensors", "pytorch_model.bin")  # tried in this order where no file is named
NOT_HERE = "0" * 64  # the digest of weights that nobody has fetched: no features can be of it


def pinned(backbone: Mapping[str, Any], fetch: bool = True) -> dict[str, Any]:
    """The settings of a backbone with `weights` naming the local copy of its file on the hub; others as they are.

    `fetch` asks the hub, which hands out a newer file where there is one; without it the copy of the last fetch is
    taken, and weights that were never fetched get a digest that no file has. Raises UsageFault where the hub says no.
    """
    if backbone.get("weights") or not backbone.get("hub"):
        return dict(backbone)
    if fetch:
        about = (f"licence {backbone['licence']}" if backbone.get("licence") else "", backbone.get("gate"))
        path = fetched(str(backbone["hub"]), _files(backbone), "; ".join(filter(None, about)))
        return {**backbone, "weights": str(path)}
    known = cached(str(backbone["hub"]), _files(backbone))
    return {**backbone, "weights": str(known)} if known else {**backbone, "weights_sha256": NOT_HERE}


def copy_of(backbone: Mapping[str, Any]) -> Path:
    """The local copy of a backbone's file on the hub. Raises UsageFault where it was never fetched to this machine."""
    found = cached(str(backbone["hub"]), _files(backbone))
    if found is None:
        raise UsageFault(
            f"the weights of backbone={backbone.get('name')} were never fetched from the hub '{backbone['hub']}' to "
            "this machine, so the folder of its features is not known; run `mtl extract` here, or set "
            "backbone.weights=PATH or backbone.weights_sha256=DIGEST"
        )
    return found


def fetched(hub: str, files: tuple[str, ...], about: str = "") -> Path:
    """The first of `files` that the repository `hub` has, in the hub's cache on this machine, as new as the hub's own.

    `about` says what the hub asks for (licence, gate). Raises UsageFault, in one sentence, where there is no such
    file, no leave to have it, no connection, or no package that fetches.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UsageFault(
            "backbone.hub needs the extra `hub`: pip install 'nsclc-mtl[hub]', or set backbone.weights=PATH"
        ) from None
    for file in files:
        try:
            return Path(hf_hub_download(hub, file))
        except Exception as error:  # offline, gated, absent: many types, one thing to do
            wrong = error
            if "EntryNotFound" not in type(error).__name__:
                break
    raise UsageFault(
        f"no weights '{file}' from the hub '{hub}' ({_told(wrong)}{f'; {about}' if about else ''}); download the "
        "file and set backbone.weights=PATH"
    ) from wrong


def cached(hub: str, files: tuple[str, ...] = FILES) -> Path | None:
    """The first of `files` that lies in the hub's cache on this machine, without asking the hub."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in files:
        found = try_to_load_from_cache(hub, file)  # a path, None, or a mark that the repository lacks the file
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def _files(backbone: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(backbone["file"]),) if backbone.get("file") else FILES


def _told(error: Exception) -> str:
    kind = type(error).__name__
    if "Gated" in kind:
        return f"{kind}: it is gated, ask for access there and log in"
    if kind == "RepositoryNotFoundError" or (kind != "LocalEntryNotFoundError" and "EntryNotFound" in kind):
        return f"{kind}: there is no such repository or file, or you are not logged in"
    return f"{kind}: offline?"
