"""What a fold keeps: what was fitted, settings of its own, weights; and the trained members back again from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import assemble
from nsclc_mtl.commands.sealed import OWN, unbroken, written
from nsclc_mtl.records import IntegrityFault, TaskSpec

if TYPE_CHECKING:
    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.learner import Learner


def save_fitted(
    folder: Path, fitted: Fitted, specs: Mapping[str, TaskSpec], modalities: Mapping[str, Mapping[str, Any]]
) -> None:
    """`fitted.json`: everything fitted on the fold's training patients, and the parts that the model is made of."""
    tasks = {n: {key: value for key, value in asdict(s).items() if key != "name"} for n, s in specs.items()}
    state = {"fitted": fitted.state(), "tasks": tasks, "modalities": {n: dict(m) for n, m in modalities.items()}}
    with written(folder / "fitted.json") as aside:
        aside.write_text(json.dumps(state) + "\n")


def save_own(folder: Path, own: Mapping[str, Any]) -> None:
    """`settings.yaml`: whole sections that a fold has otherwise than the run's configuration."""
    import yaml

    with written(folder / OWN) as aside:
        aside.write_text(yaml.safe_dump(dict(own), sort_keys=False, allow_unicode=True), encoding="utf-8")


def settings_of(cfg: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings that a fold was trained with: the run's, with the sections that are its own."""
    import yaml

    if not (folder / OWN).is_file():
        return dict(cfg)
    try:
        return {**cfg, **yaml.safe_load((folder / OWN).read_text(encoding="utf-8"))}
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise IntegrityFault(f"'{folder.name}/{OWN}' is not the file that the training wrote; train again") from error


def fitted_state(folder: Path) -> Mapping[str, Any]:
    """What was fitted for a fold of a run or bundle, in plain types, as `Fitted.state` has it; needs no model.

    Raises IntegrityFault where the file is missing, damaged, or not that of the bundle.
    """
    from nsclc_mtl.commands import bundled

    if bundled.at(folder.parent):
        state = bundled.fitted(folder)
    else:
        try:
            state = json.loads((folder / "fitted.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IntegrityFault(f"'{folder.name}/fitted.json' is missing or damaged; train again") from error
    fitted = state.get("fitted") if isinstance(state, dict) else None
    return fitted if isinstance(fitted, dict) else {}


def load_fold(
    cfg: Mapping[str, Any], folder: Path
) -> tuple[list[Learner], Fitted, dict[str, TaskSpec], dict[str, dict[str, Any]]]:
    """The trained members of a fold with what was fitted for them, from a run or a bundle. Raises IntegrityFault where
    a file is not ours.

    `cfg` is the run's configuration; the fold's own settings, where it has some, come before it.
    """
    import torch

    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.commands import bundled

    packed = bundled.at(folder.parent) is not None
    if packed:
        cfg = bundled.settings_of(folder)
    else:
        unbroken(folder)
        cfg = settings_of(cfg, folder)
    try:
        state = json.loads((folder / "fitted.json").read_text())
        fitted = Fitted.load(state["fitted"])
        specs = {n: _task(n, said) for n, said in state["tasks"].items()}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityFault(f"'{folder.name}/fitted.json' is missing or not of this version; train again") from error
    members = []
    for path in sorted(folder.glob("model*.safetensors" if packed else "model*.ckpt")):
        try:
            made = assemble.learner(cfg, specs, state["modalities"], fitted)
        except Exception as error:  # whatever parts and numbers that were put together by hand lead to
            if not packed:
                raise
            raise IntegrityFault(
                f"'{folder.name}' of the bundle describes no model that can be made: {error}"
            ) from error
        weights = bundled.weights(path) if packed else None
        try:
            if weights is None:
                weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            made.load_state_dict(weights)
        except Exception as error:  # torch raises pickle, zip, key and runtime errors alike for a file that is not ours
            raise IntegrityFault(
                f"'{folder.name}/{path.name}' does not load as this model: it was changed, or is of another version"
            ) from error
        members.append(made.eval())
    if not members:
        raise IntegrityFault(f"'{folder.name}' holds no weights of a model; train again")
    return members, fitted, specs, state["modalities"]


def _task(name: str, said: Mapping[str, Any]) -> TaskSpec:
    """A task as `fitted.json` says it, a list for a tuple. Raises TypeError for a word that no task has."""
    words: dict[str, Any] = {key: tuple(held) if isinstance(held, list) else held for key, held in said.items()}
    return TaskSpec(name, **words)
