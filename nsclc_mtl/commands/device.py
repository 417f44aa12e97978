"""Where to compute: found out before anything is read or written."""

from __future__ import annotations

from nsclc_mtl.records import UsageFault


def available(word: str) -> None:
    """Raises UsageFault where the device is unknown or not there."""
    if word not in ("auto", "cpu"):  # torch takes seconds to import
        lightning(word)


def lightning(word: str) -> tuple[str, int]:
    """Lightning's accelerator and number of devices for `device=auto|cpu|cuda`. Raises UsageFault without a GPU."""
    import torch

    if word not in ("auto", "cpu", "cuda"):
        raise UsageFault(f"device={word!r} is none of auto, cpu, cuda")
    if word == "cuda" and not torch.cuda.is_available():
        raise UsageFault("device=cuda, but this machine has no usable GPU; set device=cpu or device=auto")
    return ("cuda" if word != "cpu" and torch.cuda.is_available() else "cpu"), 1


def backend(word: str, processes: int) -> str:
    """What processes that train together talk through: nccl on GPUs, one for each, gloo on processors.

    Raises UsageFault where GPUs are too few.
    """
    import torch

    if lightning(word)[0] == "cpu":
        return "gloo"
    if torch.cuda.device_count() < processes:
        raise UsageFault(
            f"trainer.devices={processes}, but {torch.cuda.device_count()} GPU(s) are here: lower it, or set device=cpu"
        )
    return "nccl"
