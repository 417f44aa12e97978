"""The laws that define the Shapley value, on games drawn by Hypothesis, and games whose value is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.explain import shapley

NUMBERS = st.floats(-10, 10)


@st.composite
def games(draw: st.DrawFn, most: int = 5) -> np.ndarray:
    players = draw(st.integers(1, most))
    return np.array(draw(st.lists(NUMBERS, min_size=2**players, max_size=2**players)))


def swapped(players: int, a: int, b: int) -> np.ndarray:
    """Number of each coalition after players a and b have changed places."""
    inside = shapley.coalitions(players)
    inside[:, [a, b]] = inside[:, [b, a]]
    return inside @ (1 << np.arange(players))


@given(games())
def test_values_add_up_to_what_all_players_make(game: np.ndarray) -> None:
    assert shapley.values(game).sum() == pytest.approx(game[-1] - game[0], abs=1e-9)


@given(games(), st.data())
def test_players_who_change_places_change_values(game: np.ndarray, data: st.DataObject) -> None:
    players = len(game).bit_length() - 1
    a, b = (data.draw(st.integers(0, players - 1)) for _ in range(2))
    ours, theirs = shapley.values(game), shapley.values(game[swapped(players, a, b)])
    assert ours[a] == pytest.approx(theirs[b], abs=1e-9)
    alike = (game + game[swapped(players, a, b)]) / 2  # neither can be told from the other
    assert shapley.values(alike)[a] == pytest.approx(shapley.values(alike)[b], abs=1e-9)


@given(games(4), st.data())
def test_who_adds_nothing_to_any_coalition_is_worth_nothing(game: np.ndarray, data: st.DataObject) -> None:
    players = len(game).bit_length() - 1
    null = data.draw(st.integers(0, players - 1))
    without = np.arange(len(game)) & ~(1 << null)
    assert shapley.values(game[without])[null] == pytest.approx(0, abs=1e-12)


@given(games(4), st.lists(NUMBERS, min_size=16, max_size=16), NUMBERS)
def test_values_of_a_sum_are_the_sum_of_the_values(game: np.ndarray, other: list[float], by: float) -> None:
    more = np.array(other[: len(game)])
    both = shapley.values(game) + by * shapley.values(more)
    np.testing.assert_allclose(shapley.values(game + by * more), both, atol=1e-9)


@given(st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS)
def test_an_additive_game_gives_its_parts(parts: list[float], base: float) -> None:
    game = base + shapley.coalitions(len(parts)) @ np.array(parts)
    np.testing.assert_allclose(shapley.values(game), parts, atol=1e-9)


@given(games(4))
def test_it_is_the_mean_over_all_orders(game: np.ndarray) -> None:
    """The definition, order by order, for many games at once too."""
    players = len(game).bit_length() - 1
    orders = list(permutations(range(players)))
    mean = np.zeros(players)
    for order in orders:
        before = 0
        for player in order:
            mean[player] += (game[before | 1 << player] - game[before]) / len(orders)
            before |= 1 << player
    np.testing.assert_allclose(shapley.values(game), mean, atol=1e-9)
    np.testing.assert_allclose(shapley.values(np.stack([game, -game], axis=1))[:, 1], -mean, atol=1e-9)
