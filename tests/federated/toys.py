"""Workers that learn nothing: what travels is the matter here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.federated.messages import Message


class Echo:
    """Sends back what came, a number added; sleeps in the rounds `sleeps`, and leaves word there that it does."""

    def __init__(self, site: str, add: float = 0.0, sleeps: Mapping[str, float] | None = None, word: str = "") -> None:
        self.site, self.add, self.sleeps, self.word = site, add, dict(sleeps or {}), word

    def answer(self, question: Message) -> Message:
        if seconds := self.sleeps.get(str(question.round)):
            Path(self.word).touch()
            time.sleep(seconds)
        arrays = {name: np.asarray(values) + self.add for name, values in question.arrays.items()}
        return Message(question.kind, question.round, arrays, {"metrics": {"n": question.round}, "site": self.site})


class Broken:
    """Fails with words that must not leave the site."""

    def __init__(self, site: str, **settings: Any) -> None:
        self.site = site

    def answer(self, question: Message) -> Message:
        raise ValueError("patient P0017 has no stage")


def same_question(kind: str, number: int, sites: Iterable[str], **content: Any) -> dict[str, Message]:
    """One question for all these sites."""
    return dict.fromkeys(sites, Message(kind, number, **content))
