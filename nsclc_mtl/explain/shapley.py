"""Shapley values: what each player adds to a game's value, averaged over all orders in which players may come."""

from __future__ import annotations

from math import factorial

import numpy as np


def coalitions(players: int) -> np.ndarray:
    """Who is in each coalition, bool [2^players, player]: number c holds the players of its binary digits.

    >>> coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (np.arange(2**players)[:, None] >> np.arange(players)) % 2 == 1


def weights(players: int) -> np.ndarray:
    """What the value of each coalition counts in each player's Shapley value, [player, 2^players].

    Shapley, "A value for n-person games", 1953: |S|! (n - |S| - 1)! / n! for what a player adds to the coalition S.

    >>> weights(2).tolist()
    [[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5]]
    """
    inside = coalitions(players)
    before = inside.sum(axis=1, keepdims=True) - inside  # players beside the one looked at
    share = np.array([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    return np.asarray((share[before] * np.where(inside, 1, -1)).T) if players else np.zeros((0, 1))


def values(game: np.ndarray) -> np.ndarray:
    """Shapley value of each player, [player, ...], of a game's value of every coalition, [2^players, ...].

    They add up to the value of all players minus that of none.

    >>> values(np.array([0.0, 1.0, 2.0, 5.0])).tolist()
    [2.0, 3.0]
    """
    players = len(game).bit_length() - 1
    return np.tensordot(weights(players), game, axes=1)
