"""How often strangers are taken for training patients, and how often these are known again, in tables of many kinds.

    python tests/evidence/known_again.py --patients 300 --runs 5       # two minutes

Of each kind as many training patients are drawn and 500 strangers of the same population. `stranger` is the share of
these who are taken for training patients, with ids of the training (or others: `stranger/X`); the other columns are the
share of the training patients who are known, as who they are: as they were, rounded to three significant digits or two
decimals, in half precision, with one changed cell each, without 5 or 30 % of the columns; `/X` under other ids. In the
mixture a third are of the training, under other ids.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.random import Generator

from nsclc_mtl.bags import marks
from nsclc_mtl.commands.known import Known, compared
from nsclc_mtl.records import Manifest

STRANGERS, GENES = 500, 500
Draw = Callable[[Generator, int], pd.DataFrame]


def coarse(rng: Generator, n: int) -> pd.DataFrame:
    """Age band, sex and stage."""
    age = rng.choice(["<50", "50-60", "60-70", "70+"], n, p=[0.1, 0.25, 0.4, 0.25])
    stage = rng.choice(["I", "II", "III", "IV"], n, p=[0.45, 0.25, 0.2, 0.1])
    return pd.DataFrame({"age": age, "sex": rng.choice(["m", "f"], n), "stage": stage})


def years(rng: Generator, n: int) -> pd.DataFrame:
    """Age in whole years, sex, stage and smoking."""
    smoking = rng.choice(["never", "former", "current"], n, p=[0.15, 0.5, 0.35])
    return coarse(rng, n).assign(age=np.round(rng.normal(65, 10, n)), smoking=smoking)


def days(rng: Generator, n: int) -> pd.DataFrame:
    """Age in days, sex, stage and smoking."""
    return years(rng, n).assign(age=np.round(rng.normal(65 * 365, 3650, n)))


def constant(_: Generator, n: int) -> pd.DataFrame:
    return pd.DataFrame({f"c{i}": ["x"] * n for i in range(5)} | {"k": 1.0})


def missing(rng: Generator, n: int) -> pd.DataFrame:
    """`years`, 70 % of the cells empty."""
    table = years(rng, n).astype(object)
    return table.mask(rng.random(table.shape) < 0.7)


def registry(rng: Generator, n: int) -> pd.DataFrame:
    """Stage with its parts, histology and site with their codes, age with the year of birth."""
    age = np.floor(rng.normal(65, 10, n))
    stage = rng.choice(8, n, p=[0.25, 0.2, 0.12, 0.13, 0.1, 0.08, 0.07, 0.05])
    kind = rng.choice(7, n, p=[0.4, 0.25, 0.1, 0.1, 0.07, 0.05, 0.03])
    site = rng.choice(6, n, p=[0.3, 0.25, 0.2, 0.15, 0.06, 0.04])
    smoking = rng.choice(["never", "former", "current"], n, p=[0.15, 0.5, 0.35])
    whole = {"age": age, "born": 2012 - age, "group": np.floor(age / 5), "sex": rng.choice(["m", "f"], n)}
    whole |= {"stage": np.array([f"S{s}" for s in stage]), "code": 1.0 * stage, "t": np.array([f"T{s}" for s in stage])}
    whole |= {"n": stage // 2 * 1.0, "m": (stage > 5) * 1.0, "uicc": 10.0 * stage, "kind": 1.0 * kind}
    whole |= {"morphology": 8140.0 + kind, "icd": 3.0 * kind, "words": np.array([f"K{k}" for k in kind])}
    whole |= {"site": 1.0 * site, "lobe": np.array([f"L{s}" for s in site]), "topography": 34.0 + site}
    return pd.DataFrame(whole | {"smoking": smoking})


def arms(rng: Generator, n: int) -> pd.DataFrame:
    """Copy numbers of 400 genes on 40 arms, 2 % of them apart from their arm."""
    arm = rng.choice([-2, -1, 0, 1, 2], (n, 40), p=[0.03, 0.17, 0.55, 0.2, 0.05])
    table = arm[:, np.arange(400) // 10].astype(float)
    apart = rng.random(table.shape) < 0.02
    table[apart] = rng.choice([-1, 0, 1], int(apart.sum()))
    return pd.DataFrame(table).rename(columns=lambda c: f"g{c}")


def doubled(rng: Generator, n: int) -> pd.DataFrame:
    """Copy numbers that all go with the ploidy."""
    ploidy = rng.choice([2, 3, 4, 5, 6], n, p=[0.6, 0.15, 0.18, 0.05, 0.02])
    return pd.DataFrame(np.repeat(ploidy[:, None], 400, 1).astype(float)).rename(columns=lambda c: f"g{c}")


def mutations(rng: Generator, n: int) -> pd.DataFrame:
    often = np.clip(rng.exponential(0.03, 300), 0.002, 0.6) * rng.lognormal(0, 0.8, n)[:, None]
    return pd.DataFrame((rng.random((n, 300)) < np.minimum(0.95, often)).astype(float)).rename(
        columns=lambda c: f"g{c}"
    )


def genes(rng: Generator, n: int, shared: float = 0.7) -> pd.DataFrame:
    """Logarithms of expression, of twelve factors and noise."""
    loadings = np.random.default_rng(0).normal(size=(12, GENES)) / 12**0.5
    values = shared * (rng.normal(size=(n, 12)) @ loadings) + (1 - shared**2) ** 0.5 * rng.normal(size=(n, GENES))
    return pd.DataFrame(np.maximum(0, 5 + 2 * values)).rename(columns=lambda c: f"g{c}")


def tight(rng: Generator, n: int) -> pd.DataFrame:
    """Genes that hardly go their own way."""
    return genes(rng, n, 0.95)


def ten_values(rng: Generator, n: int) -> pd.DataFrame:
    """Laboratory values with one decimal."""
    values = 0.7 * rng.normal(size=(n, 10)) + 0.7 * rng.normal(size=(n, 1))
    return pd.DataFrame(np.round(np.exp(values), 1)).rename(columns=lambda c: f"l{c}")


def twenty_values(rng: Generator, n: int) -> pd.DataFrame:
    """Laboratory values with all their digits."""
    values = 0.7 * rng.normal(size=(n, 20)) + 0.7 * rng.normal(size=(n, 1))
    return pd.DataFrame(10 * np.exp(values)).rename(columns=lambda c: f"l{c}")


KINDS: tuple[Draw, ...] = (
    coarse, years, days, constant, missing, registry, arms, doubled, mutations, genes, tight, ten_values, twenty_values,
)  # fmt: skip


def numbers(change: Callable[[pd.Series], pd.Series]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.apply(lambda c: change(c) if c.dtype.kind == "f" else c)


def cell(table: pd.DataFrame) -> pd.DataFrame:
    """Another number in one column of each patient, where that holds numbers."""
    table, at = table.copy(), np.random.default_rng(3).integers(table.shape[1], size=len(table))
    for i, j in enumerate(at):
        if table.dtypes.iloc[j].kind == "f":
            table.iloc[i, j] += 1
    return table


def without(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def left(table: pd.DataFrame) -> pd.DataFrame:
        count = max(1, round(table.shape[1] * (1 - share)))
        return table.iloc[:, np.sort(np.random.default_rng(1).permutation(table.shape[1])[:count])]

    return left


EDITS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as it was": lambda table: table,
    "three digits": numbers(lambda c: c.map(lambda v: float(f"{v:.3g}"))),
    "two decimals": numbers(lambda c: c.round(2)),
    "half precision": numbers(lambda c: c.astype("float16").astype(float)),
    "a cell": cell,
    "5 % of columns": without(0.05),
    "30 % of columns": without(0.3),
}


def known(kept: marks.Marks, table: pd.DataFrame, before: set[str]) -> Known:
    ids = list(table.index)
    there = Manifest("m", pd.DataFrame({"site": ""}, ids), {}, {}, {}, tables={"t": table})
    return compared(kept, there, ids, before)


def run(kind: Draw, patients: int, seed: int) -> dict[str, float]:
    """Shares of one draw."""
    rng = np.random.default_rng(100 + seed)
    ours, theirs = (kind(rng, n).rename(lambda i: f"P{i}") for n in (patients, STRANGERS))
    before = set(ours.index)
    manifest = Manifest("m", pd.DataFrame({"site": ""}, ours.index), {}, {}, {}, tables={"t": ours})
    kept = marks.taken(manifest, list(ours.index))
    out = {f"stranger{x}": len(known(kept, theirs.rename(lambda p, x=x: x + p), before).whom) for x in ("", "/X")}
    out = {name: count / STRANGERS for name, count in out.items()}
    for name, edit in EDITS.items():
        for x in ("", "/X"):
            found = known(kept, edit(ours).rename(lambda p, x=x: x + p), before).whom
            out[name + x] = float(np.mean([found.get(x + p) == p for p in ours.index]))
    third = patients // 3
    mixture = pd.concat([ours[:third].rename(lambda p: f"Y{p}"), theirs[: 2 * third].rename(lambda p: f"Z{p}")])
    found = known(kept, mixture, before).whom
    out["mixture, known"] = sum(p.startswith("Y") for p in found) / third
    out["mixture, stranger"] = sum(p.startswith("Z") for p in found) / (2 * third)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    rows = {k.__name__: pd.DataFrame([run(k, asked.patients, s) for s in range(asked.runs)]).mean() for k in KINDS}
    print(pd.DataFrame(rows).round(3).to_string())
