"""What the numbers and words of a verb may be: told before anything is read, all faults at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from . import slide_options
from .resolved import flat, plain

# Least and largest value, and whether the number is whole; the ends belong to the range but for those below.
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "seed": (0, math.inf, True),
    "members": (1, math.inf, True),
    "audit": (0, math.inf, True),
    "shapley": (0, 12, True),
    "checkpoint_s": (0, math.inf, False),
    "bag_cache_mb": (0, math.inf, False),
    "trust.miss": (0, 1, False),
    "trust.horizon_days": (0, math.inf, False),
    "trust.outside": (0, 0.5, False),
    "trust.disagree": (0, 1, False),
    "trust.mc_dropout": (0, math.inf, True),
    "trust.crossfit": (0, math.inf, True),
    "folds.n": (2, math.inf, True),
    "folds.repeats": (1, math.inf, True),
    "folds.seed": (0, math.inf, True),
    "folds.validation": (0, 1, False),
    "folds.calibration": (0, 1, False),
    "folds.min_events": (0, math.inf, True),
    "folds.min_validation": (0, math.inf, True),
    "folds.min_test": (0, math.inf, True),
    "folds.site_patients": (0, math.inf, True),
    "folds.workers": (0, math.inf, True),
    "folds.threads": (1, math.inf, True),
    "trials": (1, math.inf, True),
    "startup": (1, math.inf, True),
    "inner": (0, math.inf, True),
    "trainer.max_epochs": (1, math.inf, True),
    "trainer.devices": (1, math.inf, True),
    "trainer.accumulate_grad_batches": (1, math.inf, True),
    "callbacks.early_stopping.patience": (1, math.inf, True),
    "callbacks.early_stopping.min_delta": (0, math.inf, False),
    "callbacks.ema.decay": (0, 1, False),
    "callbacks.swa.begins": (0, 1, False),
    "optim.optimizer.lr": (0, math.inf, False),
    "optim.optimizer.weight_decay": (0, math.inf, False),
    "optim.warmup": (0, 1, False),
    "optim.batch_size": (1, math.inf, True),
    "optim.min_steps": (0, math.inf, True),
    "optim.dim": (1, math.inf, True),
    "adaptation.strength": (0, math.inf, False),
    "adaptation.hidden": (0, math.inf, True),
    "adaptation.speed": (0, math.inf, False),
    "adaptation.damping": (0, math.inf, False),
    "adaptation.means": (0, math.inf, False),
    "skip.folds": (2, math.inf, True),
    "fusion.modality_dropout": (0, 1, False),
    "fusion.experts": (1, math.inf, True),
    "fusion.levels": (1, math.inf, True),
    "fusion.shared": (1, math.inf, True),
    "fusion.own": (1, math.inf, True),
    "fusion.rank": (1, math.inf, True),
    "parts.tasks.survival.fit.bins": (1, math.inf, True),
    "bootstrap": (0, math.inf, True),
    "risk_horizon_days": (0, math.inf, False),
    "alarm": (0.5, 1, False),
    "alpha": (0, 1, False),
    "slides.mpp": (-math.inf, math.inf, False),  # whether it is plausible is told of each slide
    "slides.mpp_tolerance": (0, 0.5, False),
    "slides.max_unreadable": (0, 0.05, False),  # as slides/reader/soundness.py has it
    "slides.tile_um": (0, math.inf, False),
    "slides.overlap_um": (0, math.inf, False),
    "slides.min_tissue": (0, 1, False),
    "slides.workers": (0, 1024, True),
    "slides.readers": (0, 1024, True),
    "slides.stage_ahead": (1, 1024, True),
    "slides.sample": (1, math.inf, True),
    "slides.sample_seed": (-math.inf, math.inf, True),
    "slides.tissue.min_area_um2": (0, math.inf, False),
    "slides.tissue.max_hole_um2": (0, math.inf, False),
    "slides.tissue.least_sharpness": (0, math.inf, False),
    "stain.views": (0, 1024, True),
    "stain.sample": (1, math.inf, True),
    "stain.spread": (0, 1, False),
    "stain.seed": (-math.inf, math.inf, True),
    "engine.hours": (0, math.inf, False),
    "engine.restarts": (0, math.inf, True),
    "engine.grace_s": (0, 65535, True),
    "engine.memory_gb": (0, math.inf, False),
    "engine.cores": (1, math.inf, True),
    "engine.parallel": (1, math.inf, True),
    "slides": (1, math.inf, True),  # of `mtl plan-cost`; a group elsewhere
    "tiles_per_slide": (0, math.inf, False),
    "gb_per_slide": (0, math.inf, False),
    "shards": (1, math.inf, True),
    "workers": (1, math.inf, True),
    "folds_at_a_time": (1, math.inf, True),
    "shard.index": (0, math.inf, True),
    "shard.count": (1, math.inf, True),
    "engine.actors": (1, math.inf, True),
    "engine.cpus": (0, math.inf, False),
    "engine.gpus": (0, math.inf, False),
    "engine.tries": (1, math.inf, True),
    "engine.wait_s": (0, math.inf, False),
    "cohort.n": (1, math.inf, True),
    "cohort.seed": (0, math.inf, True),
}
# the same by the last word of a key of `parts` or `fusion`, whichever encoder or fusion it belongs to
PARTS: dict[str, tuple[float, float, bool]] = {
    "dropout": (0, 1, False),
    "input_dropout": (0, 1, False),
    "tile_dropout": (0, 1, False),
    "depth": (0, math.inf, True),
}
# the least value itself is none
ABOVE = (
    "trust.miss", "trust.horizon_days", "alpha", "optim.optimizer.lr", "slides.tile_um", "adaptation.speed",
    "risk_horizon_days", "engine.hours", "engine.memory_gb", "engine.cpus",
    "tiles_per_slide", "gb_per_slide",
)  # fmt: skip
BELOW = (
    "trust.miss", "alpha", "folds.validation", "folds.calibration", "callbacks.ema.decay", "callbacks.swa.begins",
    "fusion.modality_dropout", "dropout", "input_dropout", "tile_dropout",
)  # nor is the largest  # fmt: skip
NULL = (
    "trust.mc_dropout", "trust.disagree", "folds.seed", "folds.threads", "slides.mpp", "slides.sample",
    "risk_horizon_days", "engine.memory_gb", "engine.cores", "engine.parallel",
    "tiles_per_slide", "gb_per_slide", "folds_at_a_time", "shard.index", "engine.actors",
)  # null means something  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cpu", "cuda"),
    # Lightning's, and bf16 for bf16-mixed; not 16-mixed, whose sums over 60,000 tiles pass the largest half, nor
    # 16-true and bf16-true, which would round what is no weight, such as the days of the bins' edges, nor 64-true:
    # weights are kept and predict in single precision
    "precision": ("32-true", "bf16", "bf16-mixed"),
    "trust.mondrian": ("none", "class", "site"),
    "cox.mode": ("batch", "exact"),
    "trainer.strategy": ("auto", "ddp"),
    "callbacks.early_stopping.watch": ("score", "loss"),
    "optim.sampler": ("shuffled", "balanced"),
    "risk_groups": ("median", "tertiles", "maxstat"),
    "engine.cluster": ("local", "slurm"),
    "cohort.level": ("features", "images"),
    "cohort.missing": ("mcar", "mar", "mnar"),
    "cohort.site": ("none", "shift", "confounded"),
}


def faults(cfg: Any) -> list[str]:
    """What is wrong with the values of a composed configuration, a sentence each; keys that it lacks are no fault."""
    settings = plain(cfg)
    return [*_faults(flat(settings), settings), *slide_options.faults(settings)]


def _faults(values: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    phantom = "cohort.level" in values  # another cohort's `n` or `site` would be words of its own
    for key, known in WORDS.items():
        if key in values and (phantom or not key.startswith("cohort.")) and values[key] not in known:
            yield f"{key}={values[key]!r} is none of {', '.join(known)}"
    for key, (low, high, whole) in NUMBERS.items():
        if key not in values or (key.startswith("cohort.") and not phantom) or values[key] == "???":
            continue
        if not (values[key] is None and key in NULL) and not _holds(key, values[key], low, high, whole):
            yield f"{key}: {_wanted(key, low, high, whole)} is needed, not {values[key]!r}" + ", or null" * (
                key in NULL
            )
    for key, value in values.items():
        head, last = key.split(".", 1)[0], key.rsplit(".", 1)[-1]
        if head in ("parts", "fusion") and last in PARTS and not _holds(last, value, *PARTS[last]):
            yield f"{key}: {_wanted(last, *PARTS[last])} is needed, not {value!r}"
    if values.get("trust.crossfit") == 1:
        yield "trust.crossfit=1 leaves nobody to train on: take 2 parts or more, or 0 for none"
    for key in ("tasks", "modalities"):
        if settings.get(key) == []:
            yield f"{key}=[] leaves nothing: name at least one, or null for all"
    yield from _shares(values)
    batches = values.get("trainer.accumulate_grad_batches")
    if values.get("cox.mode") == "exact" and isinstance(batches, int) and batches > 1:
        yield (
            "cox.mode=exact: a step looks at all training patients, and there are no further batches to accumulate; "
            "leave out trainer.accumulate_grad_batches"
        )
    ends = values.get("thresholds")
    if ends is not None and not _range(ends):
        yield f"thresholds: a range within 0 and 1 such as [0.05,0.5] is needed, not {ends!r}, or null"
    fold = values.get("fold", "all")
    if fold != "all" and not _holds("fold", fold, 0, math.inf, True):
        yield f"fold: the number of a fold or `all` is needed, not {fold!r}"


def _shares(values: Mapping[str, Any]) -> Iterator[str]:
    size, of = values.get("optim.batch_size"), values.get("trainer.devices")
    if values.get("trainer.strategy") == "ddp" and isinstance(size, int) and isinstance(of, int) and of and size % of:
        yield f"optim.batch_size={size} cannot be dealt to trainer.devices={of} equally: take a multiple"


def _range(ends: Any) -> bool:
    """Whether these are two shares, neither of them 0 or 1, the lower one first."""
    if not isinstance(ends, list) or len(ends) != 2:
        return False
    return all(_holds("alpha", end, 0, 1, False) for end in ends) and ends[0] < ends[1]


def _holds(key: str, value: Any, low: float, high: float, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        return False
    return low <= value <= high and not (value == low and key in ABOVE) and not (value == high and key in BELOW)


def _wanted(key: str, low: float, high: float, whole: bool) -> str:
    number = "a whole number" if whole else "a number"
    if low == -math.inf:
        return number
    if high == math.inf:
        return f"{number} above {low:g}" if key in ABOVE else f"{number} from {low:g} up"
    if key in ABOVE:
        return f"{number} between {low:g} and {high:g}"
    return f"{number} from {low:g} to below {high:g}" if key in BELOW else f"{number} from {low:g} to {high:g}"
