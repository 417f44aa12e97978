"""The guard: whatever sites send, what is accepted is finite and of the model's form, and nothing is raised."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.federated import guard, masks
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.update import Update, mean, trimmed_mean

START = {
    "encoder.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "head.bias": np.zeros(3, np.float32),
    "seen": np.array(7, np.int64),
    "scale": np.ones(2, np.float64),
}
COUNTS = {"A": 40, "B": 25, "C": 31}


def update(site: str, by: float = 0.01, n: int | None = None, **more: Any) -> Update:
    """A sound update that changes every number by `by`."""
    state = {
        name: np.rint(values).astype(values.dtype) if name == "seen" else values + by for name, values in START.items()
    }
    state = {name: np.asarray(values, START[name].dtype) for name, values in state.items()}
    return Update(site, state, COUNTS[site] if n is None else n, more.pop("metrics", {"train/loss": 0.7}))


def changed(site: str, name: str, values: Any) -> Update:
    sound = update(site)
    return Update(site, {**sound.state, name: values}, sound.n, sound.metrics)


def without(site: str, name: str) -> Update:
    sound = update(site)
    return Update(site, {key: values for key, values in sound.state.items() if key != name}, sound.n, {})


def poked(value: float, name: str = "head.bias") -> np.ndarray:
    values = START[name].copy()
    values.reshape(-1)[0] = value
    return values


BAD: dict[str, tuple[Update, str]] = {
    "NaN": (changed("B", "head.bias", poked(math.nan)), "not finite"),
    "inf": (changed("B", "head.bias", poked(-math.inf)), "not finite"),
    "1000x": (update("B", 10.0), "more than 10 times the usual"),
    "overflow": (changed("B", "scale", np.full(2, 1e300)), "more than can be measured"),
    "shape": (changed("B", "head.bias", np.zeros((3, 1), np.float32)), r"shape \[3, 1\], the model's is \[3\]"),
    "scalar": (changed("B", "head.bias", np.float32(0)), "is no array"),
    "list": (changed("B", "head.bias", [0.0, 0.0, 0.0]), "is no array"),
    "dtype": (changed("B", "head.bias", np.zeros(3)), "type 'float64', the model's is float32"),
    "objects": (changed("B", "head.bias", np.array([None, {}, "x"])), "type 'object'"),
    "words": (changed("B", "head.bias", np.array(["x"] * 3)), "the model's is float32"),
    "missing": (without("B", "scale"), r"lacks 1 of the 4 arrays of the model \(first: 'scale'\)"),
    "extra": (changed("B", "back\ndoor", np.zeros(3, np.float32)), r"first: 'back\\ndoor'"),
    "masked": (changed("B", masks.N, np.zeros(1, np.uint64)), "has 1 arrays that the model has not"),
    "n=0": (update("B", n=0), "trained on 0 patients, of 1 to 25"),
    "n<0": (update("B", n=-3), "trained on -3 patients"),
    "n large": (update("B", n=26), "trained on 26 patients, of 1 to 25"),
    "n float": (update("B", n=25.0), "not a whole number"),  # type: ignore[arg-type]
    "n bool": (update("B", n=True), "not a whole number"),
    "n NaN": (update("B", n=math.nan), "not a whole number"),  # type: ignore[arg-type]
    "metric bool": (update("B", metrics={"ok": True}), "neither a usual number nor a short word"),
    "metric NaN": (update("B", metrics={"loss": math.nan}), "neither a usual number"),
    "metric huge": (update("B", metrics={"loss": 10**5000}), "more than 15 digits"),
    "metric long": (update("B", metrics={"told": "x" * 10_000}), "x..., neither"),
    "metric table": (update("B", metrics={"patients": ["p1", "p2"]}), "neither a usual number"),
    "metric name": (update("B", metrics={"x" * 500: 1.0}), "no short word"),
    "metrics many": (update("B", metrics={str(i): 0.0 for i in range(1000)}), "has 1000 metrics"),
    "metrics none": (update("B", metrics=[1, 2]), "are no table"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_update_is_left_out_with_its_reason(kind: str) -> None:
    bad, reason = BAD[kind]
    good, told = guard.accepted([update("C"), bad, update("A", 0.02)], START, START, Plan(), COUNTS)
    assert [one.site for one in good] == ["A", "C"]
    assert list(told) == ["B"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(told["B"])
    assert "\n" not in told["B"]
    assert len(told["B"]) < 300


def test_sound_updates_all_pass() -> None:
    metrics = {"train/loss": 0.5, "train/score": None, "device": "cpu", "epochs": 3, "rate": np.float64(0.1)}
    good, told = guard.accepted(
        [update("B", metrics=metrics), update("A", n=1), update("C", -0.03)], START, START, Plan(), COUNTS
    )
    assert [one.site for one in good] == ["A", "B", "C"]
    assert told == {}


def test_strangers_and_double_answers_are_left_out() -> None:
    stranger = Update("D", update("A").state, 3)
    good, told = guard.accepted([update("A"), update("B"), update("A", 0.02), stranger], START, START, Plan(), COUNTS)
    assert [one.site for one in good] == ["B"]
    assert "more than one update" in told["A"]
    assert "not one of the sites" in told["D"]


@pytest.mark.parametrize("factor", [-1000.0, 11.0])
def test_of_two_sites_the_longer_one_cannot_hide(factor: float) -> None:
    two = [update("A", 0.01 * factor), update("B", 0.01)]
    assert list(guard.too_long(two, START, 10.0)) == ["A"]


def test_long_ones_are_seen_up_to_half_of_the_sites_and_not_beyond() -> None:
    def long(sites: str) -> list[Update]:
        state = lambda by: {"scale": np.full(2, 1.0 + by)}  # noqa: E731
        return [Update(s, state(100.0 if s in sites else 0.1), 5) for s in "ABCD"]

    start = {"scale": np.ones(2)}
    assert sorted(guard.too_long(long("BD"), start, 10.0)) == ["B", "D"]
    assert guard.too_long(long("BCD"), start, 10.0) == {}  # what it cannot see: a majority
    assert sorted(guard.too_long(long("BCD"), start, 10.0, memory=0.1)) == []  # nor does a memory make it stricter


def test_memory_saves_the_honest_from_the_tiny_and_no_bad_site_can_raise_it() -> None:
    start = {"scale": np.ones(2)}
    tiny, honest = (Update(s, {"scale": np.ones(2) + by}, 5) for s, by in (("A", 1e-9), ("B", 0.1)))
    assert list(guard.too_long([tiny, honest], start, 10.0)) == ["B"]
    usual = guard.yardstick([Update("A", {"scale": np.full(2, 1.1)}, 5), honest], start)
    assert guard.too_long([tiny, honest], start, 10.0, memory=usual) == {}
    memory = usual
    for _ in range(5):  # always just within the limit
        length = 9.9 * max(memory, usual) / math.sqrt(2)
        bad = Update("A", {"scale": 1 + np.full(2, length)}, 5)
        assert guard.too_long([bad, honest], start, 10.0, memory) == {}
        memory = guard.yardstick([bad, honest], start, memory)
    assert memory == pytest.approx(usual)


def test_sites_that_change_nothing_are_no_measure() -> None:
    start = {"scale": np.ones(2)}
    idle = [Update(s, dict(start), 5) for s in "AB"]
    moving = Update("C", {"scale": np.full(2, 1.5)}, 5)
    assert guard.too_long([*idle, moving], start, 10.0) == {}
    assert guard.yardstick(idle, start) == 0.0
    assert guard.too_long(idle, start, 10.0) == {}


numbers = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0])
arrays = st.one_of(
    st.lists(numbers, min_size=3, max_size=3).map(lambda x: np.array(x, np.float32)),
    st.lists(st.floats(), max_size=4).map(np.array),
    st.sampled_from([np.zeros((3, 1), np.float32), np.array(["a"]), np.array([None]), None, 3.0, "word"]),
)
counts = st.integers(-2, 60) | st.sampled_from([True, None, "7", 1.5, math.nan, 10**30])
told = st.dictionaries(st.text(max_size=5), st.floats() | st.integers() | st.booleans() | st.none() | st.text())
names = st.dictionaries(st.sampled_from(["head.bias", "scale", "else"]), arrays)


@given(st.lists(st.tuples(st.sampled_from("ABCD"), names, counts, told, st.booleans()), max_size=6))
def test_what_is_accepted_makes_a_finite_model_of_the_same_form(sent: list[Any]) -> None:
    updates = []
    for site, own, n, metrics, lacking in sent:
        state = {} if lacking else {key: values.copy() for key, values in START.items()}
        updates.append(Update(site, {**state, **own}, n, metrics))
    plan = Plan(norm_limit=1e30)  # so that lengths alone do not keep the worst out
    good, why = guard.accepted(updates, START, START, plan, COUNTS)
    assert {one.site for one in good} | set(why) == {one.site for one in updates}
    assert not {one.site for one in good} & set(why)
    for make in (mean, *([lambda x: trimmed_mean(x, 1)] if len(good) > 2 else [])):
        made = make(good) if good else dict(START)
        assert {name: (x.shape, x.dtype) for name, x in made.items()} == {
            name: (x.shape, x.dtype) for name, x in START.items()
        }
        assert all(np.isfinite(x).all() for x in made.values())


def test_a_sum_is_judged_by_its_form_its_patients_and_former_rounds() -> None:
    state = {name: np.asarray(values + 0.01).astype(values.dtype) for name, values in START.items()}
    usual = guard.length(state, START)
    assert guard.fault_of_sum(state, 96, START, START, 96, 10.0, usual) is None
    assert "of 1 to 96" in str(guard.fault_of_sum(state, 97, START, START, 96))
    assert "not finite" in str(guard.fault_of_sum({**state, "head.bias": poked(math.nan)}, 96, START, START, 96))
    far = {**state, "scale": np.full(2, 500.0)}
    assert guard.fault_of_sum(far, 96, START, START, 96, 10.0) is None  # there is nothing to compare it with
    assert "of former rounds" in str(guard.fault_of_sum(far, 96, START, START, 96, 10.0, usual))


def test_masked_numbers_are_judged_by_their_form_alone() -> None:
    sound = {name: np.zeros(values.shape, np.uint64) for name, values in START.items()} | masks.extra()
    assert guard.fault_of_masked(sound, START) is None
    assert "lacks 1" in str(guard.fault_of_masked({k: v for k, v in sound.items() if k != masks.CHECK}, START))
    assert "uint64" in str(guard.fault_of_masked({**sound, "scale": np.zeros(2)}, START))
    assert "shape" in str(guard.fault_of_masked({**sound, "scale": np.zeros(3, np.uint64)}, START))
