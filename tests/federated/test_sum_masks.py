"""Secure summation: the sum is that of the plain numbers, single answers are noise, and nothing opens by halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography")

from scipy import stats

from nsclc_mtl.federated import guard, masks
from nsclc_mtl.federated.update import Update, mean
from nsclc_mtl.records import DataFault, Fault, IntegrityFault, UsageFault

KEYS = {site: masks.keys() for site in "ABCD"}
ABOUT = "trial/fold 0/question 3"


def state(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(seed))
    return {
        "weight": rng.normal(size=(40, 7)).astype(np.float32),
        "bias": rng.normal(size=5) * 100,
        "rate": np.array(seed + 0.25, np.float32),
        "none": np.zeros((0, 3), np.float32),
    }


UPDATES = [Update(site, state(i), n) for i, (site, n) in enumerate((("A", 17), ("B", 240), ("C", 1)))]


def publics(sites: str) -> dict[str, bytes]:
    return {site: KEYS[site][1] for site in sites}


def sent(update: Update, sites: str = "ABC", about: str = ABOUT) -> dict[str, np.ndarray]:
    return masks.masked(update.state, update.n, update.site, KEYS[update.site][0], publics(sites), about)


def test_the_sum_is_the_plain_mean_to_the_step() -> None:
    total = masks.summed({update.site: sent(update) for update in UPDATES})
    made, n = masks.unmasked(total, UPDATES[0].state, publics("ABC"), ABOUT)
    plain = mean(UPDATES)
    assert n == 258
    for name, values in plain.items():
        assert made[name].shape == values.shape
        assert made[name].dtype == values.dtype
        slack = 3 * 2.0 ** -(masks.BITS + 1) / n + np.finfo(values.dtype).eps * np.abs(values).max(initial=0)
        np.testing.assert_allclose(made[name], values, rtol=0, atol=slack)
    assert guard.fault_of_sum(made, n, UPDATES[0].state, UPDATES[0].state, 258) is None


@given(st.permutations("ABC"))
@settings(max_examples=6)
def test_the_order_is_nothing(order: list[str]) -> None:
    parts = {update.site: sent(update) for update in UPDATES}
    assert all(guard.fault_of_masked(part, UPDATES[0].state) is None for part in parts.values())
    first, again = masks.summed(parts), masks.summed({site: parts[site] for site in order})
    assert all(np.array_equal(first[name], again[name]) for name in first)
    told = {site: publics("ABC")[site] for site in order}
    same = masks.masked(UPDATES[1].state, 240, "B", KEYS["B"][0], told, ABOUT)
    assert all(np.array_equal(same[name], parts["B"][name]) for name in same)


def test_what_one_site_sends_looks_even() -> None:
    """Bytes of zeros and of ones times a thousand patients: under the masks both are noise, and not each other's."""
    pictures = []
    for value in (0.0, 1.0):
        own = masks.masked({"w": np.full(40_000, value)}, 1000, "A", KEYS["A"][0], publics("AB"), f"{ABOUT}{value}")
        counts = np.bincount(own["w"].view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
        for byte in range(8):  # also each place of a number by itself, the highest and the lowest
            counts = np.bincount(own["w"].view(np.uint8)[byte::8], minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
        pictures.append(own["w"])
    apart = (pictures[0] - pictures[1]).view(np.uint8)
    assert stats.chisquare(np.bincount(apart, minlength=256)).pvalue > 1e-6


def test_other_questions_other_sites_and_other_pairs_have_other_masks() -> None:
    zero = Update("A", {"w": np.zeros(64)}, 1)
    seen = [sent(zero)["w"], sent(zero, about="trial/fold 0/question 4")["w"], sent(zero, "AB")["w"]]
    seen += [sent(zero, "AC")["w"], sent(zero, "ABCD")["w"]]
    assert len(np.unique(np.concatenate(seen))) == 5 * 64
    # nor do the masks of three sites hold those of two of them: else a second question would open the first
    assert not np.array_equal(seen[0], seen[2] + seen[3])


@pytest.mark.parametrize("missing", "ABC")
def test_without_one_site_nothing_opens(missing: str) -> None:
    parts = {update.site: sent(update) for update in UPDATES if update.site != missing}
    total = masks.summed(parts)
    with pytest.raises(IntegrityFault, match="the sum of 3 sites does not open"):
        masks.unmasked(total, UPDATES[0].state, publics("ABC"), ABOUT)
    rest = "ABC".replace(missing, "")
    with pytest.raises(IntegrityFault):  # nor by calling it a sum of two
        masks.unmasked(total, UPDATES[0].state, publics(rest), ABOUT)
    noise = total["weight"].view(np.int64) / 2.0**63
    assert np.abs(noise).mean() > 0.3  # 0.5 where it is even over the whole range


def test_a_site_that_answers_another_question_is_noticed() -> None:
    parts = {update.site: sent(update) for update in UPDATES}
    for wrong in (sent(UPDATES[2], about="trial/fold 0/question 2"), sent(UPDATES[2], "ABCD"), parts["A"]):
        with pytest.raises(IntegrityFault, match="ask again those that answer"):
            masks.unmasked(masks.summed({**parts, "C": wrong}), UPDATES[0].state, publics("ABC"), ABOUT)


def test_numbers_beyond_the_range_are_refused_and_those_within_are_exact() -> None:
    most = (2**63 - 1) // 3 / 2**masks.BITS

    def both(value: float, n: int) -> float:
        parts = {}
        for site in "ABC":
            parts[site] = masks.masked({"w": np.array([value])}, n, site, KEYS[site][0], publics("ABC"), ABOUT)
        return float(masks.unmasked(masks.summed(parts), {"w": np.zeros(1)}, publics("ABC"), ABOUT)[0]["w"][0])

    for value in (most / 50 * 0.999, -most / 50 * 0.999, 0.0, 1e-3):
        assert both(value, 50) == pytest.approx(value, rel=1e-12, abs=2.0**-masks.BITS / 50)
    for value in (most / 50 * 1.001, -most, 1e300, 1e308):
        with pytest.raises(DataFault, match=r"beyond the .* that a secure sum holds"):
            both(value, 50)
    for value in (np.nan, np.inf):
        with pytest.raises(DataFault, match="not finite"):
            both(value, 50)


def refused(kind: type[Fault], told: str, site: str = "A", **more: object) -> None:
    given = {"n": 3, "private": KEYS["A"][0], "publics": publics("ABC"), **more}
    with pytest.raises(kind, match=told):
        masks.masked({"w": np.zeros(2)}, site=site, about=ABOUT, **given)  # type: ignore[arg-type]


def test_keys_that_do_not_fit_are_refused() -> None:
    refused(UsageFault, "fewer than two sites", publics=publics("A"))
    refused(UsageFault, "the roster has another key for the site 'B'", site="B")
    refused(UsageFault, "the roster has another key for the site 'D'", site="D")
    refused(IntegrityFault, "not one of 32 bytes", private=b"short")
    refused(IntegrityFault, "public key of the site 'B'", publics={**publics("ABC"), "B": b"short"})
    refused(IntegrityFault, "public key of the site 'B'", publics={**publics("ABC"), "B": bytes(32)})
    refused(IntegrityFault, "have one and the same key", publics={**publics("AB"), "C": KEYS["A"][1]})
    refused(DataFault, "trained on 0 patients", n=0)
    with pytest.raises(DataFault, match="no site"):
        masks.summed({})


def test_no_name_is_answered_twice_with_other_numbers(tmp_path: Path) -> None:
    """Two states under one mask: the server would see their difference, which is why a site keeps track."""
    one, other = Update("A", {"w": np.array([1.0, 5.0])}, 2), Update("A", {"w": np.array([4.0, 5.5])}, 2)
    apart = (sent(other)["w"] - sent(one)["w"]).astype(np.int64) / 2**masks.BITS
    assert apart.tolist() == [6.0, 1.0]
    path = tmp_path / "site" / "said.txt"
    once = masks.Once(path)
    once.said(ABOUT, sent(one))
    once.said(ABOUT, sent(one))  # the server did not hear it
    once.said("another question", sent(other, about="another question"))
    for kept in (once, masks.Once(path)):
        with pytest.raises(IntegrityFault, match="must ask a new question"):
            kept.said(ABOUT, sent(other))
        kept.said(ABOUT, sent(one))
    path.write_text("half")
    with pytest.raises(IntegrityFault, match="make new keys"):
        masks.Once(path)
