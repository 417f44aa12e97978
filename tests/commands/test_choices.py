"""Choices that would teach a task nothing, or something that is not so, are refused before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nsclc_mtl.commands import assemble
from nsclc_mtl.config import compose, plain
from nsclc_mtl.records import TaskSpec, UsageFault

SURVIVAL, GRADE = TaskSpec("survival", "survival"), TaskSpec("grade", "ordinal", ("G1", "G2", "G3"))
RESPONSE, SIZE = TaskSpec("response", "binary", ("no", "yes")), TaskSpec("size", "regression")


def chosen(*words: str) -> dict[str, Any]:
    return plain(compose("train", [*words]))


@pytest.mark.parametrize(
    ("words", "specs", "sentence"),
    [
        ("survival=cox optim.batch_size=1", (SURVIVAL,), "leaves a process one: take more, or cox.mode=exact"),
        ("survival=cox trainer=ddp optim.batch_size=2", (SURVIVAL,), "leaves a process one"),
        ("survival=hazard cox.mode=exact", (SURVIVAL, GRADE), "no survival task is Cox's"),
        ("optim.sampler=balanced optim.sampler_task=response", (RESPONSE, SIZE), "the numbers of 'size'"),
    ],
)
def test_what_could_not_be_learned_is_refused(words: str, specs: tuple[TaskSpec, ...], sentence: str) -> None:
    with pytest.raises(UsageFault, match=sentence):
        assemble.sound(chosen(*words.split()), {spec.name: spec for spec in specs})


@pytest.mark.parametrize(
    ("words", "specs"),
    [
        ("survival=cox optim.batch_size=1 cox.mode=exact", (SURVIVAL,)),
        ("survival=cox optim.batch_size=1", (GRADE,)),
        ("survival=cox optim.batch_size=2", (SURVIVAL,)),
        ("optim.sampler=balanced optim.sampler_task=response", (RESPONSE,)),
    ],
)
def test_what_can_be_learned_is_not(words: str, specs: tuple[TaskSpec, ...]) -> None:
    assemble.sound(chosen(*words.split()), {spec.name: spec for spec in specs})


def test_a_linear_skip_wants_something_to_be_fitted_on() -> None:
    slides = SimpleNamespace(tables={}, bags={"wsi": {}})
    with pytest.raises(
        UsageFault, match=r"this run reads none: leave it out, or take the mean tile with skip.bags=true"
    ):
        assemble.lines(chosen("skip=linear"), slides)
    assemble.lines(chosen("skip=linear", "skip.bags=true"), slides)
    assemble.lines(chosen("skip=linear"), SimpleNamespace(tables={"rna": None}, bags={}))
    assemble.lines(chosen(), slides)
