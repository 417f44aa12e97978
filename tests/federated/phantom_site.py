"""A site of the features-level phantom for tests over a network, sound or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.federated.messages import Message
from tests.federated.small import settings_of, sites_of

BAD = {"nan": lambda x: x * np.nan, "long": lambda x: x + 1000, "shape": lambda x: np.ravel(x)[:1]}


class Phantom:
    """Answers as the phantom's site of that name; in round k as the k-th word of `bad` says."""

    def __init__(self, site: str, out: str, words: list[str], bad: list[str] | None = None) -> None:
        self.site = sites_of(settings_of(Path(out), *words))[site]
        self.bad = bad or []

    def answer(self, question: Message) -> Message:
        made = self.site.answer(question)
        if question.kind != "train" or made.kind != "train":
            return made
        number = int(question.words["number"])
        change: Any = BAD.get(self.bad[number]) if number < len(self.bad) else None
        if change is None:
            return made
        return replace(made, arrays={name: change(np.array(values)) for name, values in made.arrays.items()})
