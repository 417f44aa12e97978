"""A fitted table encoder: raw columns in, a numeric matrix out; everything fitted comes from training patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.pathways import TOKENS, Pathways, Sets
from nsclc_mtl.tables.read import MISSING, numeric_table
from nsclc_mtl.tables.recipe import Recipe
from nsclc_mtl.tables.select import Labels, positions
from nsclc_mtl.tables.transform import Transform


@dataclass
class TableEncoder:
    """Turns a table into [patient, column] float32: one-hot, imputed, standardised. Its state is plain JSON.

    Numeric columns come to their logarithm and become scores of gene sets where that is asked for, are imputed with the
    training median, scaled to the training mean and SD and clipped at `clip` SD; a column that was sometimes missing in
    training gets an indicator. Categories are those of the training patients; another one at predict encodes as all
    zeros. Columns constant in training are dropped.
    """

    numbers: list[str] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    sd: list[float] = field(default_factory=list)
    indicated: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    ordered: dict[str, list[str]] = field(default_factory=dict)
    clip: float | None = 5.0
    loadings: list[list[float]] | None = None  # [component, column]: principal components of the scaled columns
    wide: bool = False  # the scaled columns come out all the same; the learner takes their components
    log: str = "none"
    library: list[str] = field(default_factory=list)  # columns whose sum is a patient's library size
    pathways: Pathways | None = None  # numeric columns come out as its scores
    groups: dict[str, list[int]] = field(default_factory=dict)  # gene set -> columns that come out: for tokens
    middle: list[float] = field(default_factory=list)  # training mean of `before_components`

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        columns: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        *,
        labels: Labels | None = None,
        sets: Sets | None = None,
        **words: Any,
    ) -> TableEncoder:
        """The encoder of these (training) patients.

        `columns` says what each column is: `numeric`, `categorical`, or the list of its values from low to high; None
        takes every column as numeric. `words` are those of `Recipe`, where none is given: `select` and `keep` choose
        numeric columns, `components` replaces them by that many principal components, which a small cohort can learn
        from. `labels` are those of the training patients, which `select=univariate` goes by; `sets` are gene sets.
        """
        recipe = recipe or Recipe(**words)
        made = cls(clip=recipe.clip if recipe.scaling != "none" else None, wide=recipe.wide)
        kinds: Mapping[str, Any] = columns if columns is not None else dict.fromkeys(table.columns, "numeric")
        for name, kind in kinds.items():
            if isinstance(kind, str) and kind not in ("numeric", "categorical"):
                raise UsageFault(
                    f"column '{name}' is declared as '{kind}'; "
                    "say numeric, categorical, or list its values from low to high"
                )
        _there(table, kinds)
        ordered = {name: [str(v) for v in kind] for name, kind in kinds.items() if not isinstance(kind, str)}
        made.categories = {
            name: sorted(set(table[name]) - set(MISSING)) for name, kind in kinds.items() if kind == "categorical"
        }
        made.ordered = ordered
        numbers = [name for name, kind in kinds.items() if kind == "numeric"]
        change = Transform.of(recipe.values, recipe.log, numbers)
        made.log, made.library = change.log, list(change.library)
        frame = made._logged(table, [name for name in kinds if name in ordered or kinds[name] == "numeric"])
        if sets and recipe.scores != TOKENS:
            made.pathways = Pathways.fit(frame, sets, recipe.scores)
            frame = made.pathways(frame)
        elif sets:
            frame = frame[[c for c in frame.columns if c in {c for own in sets.values() for c in own}]]
        made._fit_numbers(frame, recipe, labels)
        if sets and recipe.scores == TOKENS:
            made.groups = made._grouped(sets)
        kept = frame.rename(columns=str)[made.numbers].to_numpy(dtype=float).reshape(len(table), len(made.numbers))
        made.middle = np.concatenate(made._parts(kept, table), axis=1).mean(axis=0).round(7).tolist()
        return made

    def _fit_numbers(self, frame: pd.DataFrame, recipe: Recipe, labels: Labels | None) -> None:
        """Imputation, scale, selection and components of numeric columns [patient, column]."""
        values = frame.to_numpy()
        seen = np.isfinite(values)
        with np.errstate(all="ignore"):
            median = np.nan_to_num(np.where(seen.any(0), _nan(np.nanmedian, values, seen), 0.0))
            filled = np.where(seen, values, median)
            mean, sd = filled.mean(0), filled.std(0)
        keep = np.flatnonzero(np.isfinite(sd) & (sd > 1e-9 * np.maximum(1.0, np.abs(mean))))
        rule, most = recipe.rule
        keep = keep[positions(rule, filled[:, keep], sd[keep], most, labels, frame.index)]
        mean, sd = _scale(filled[:, keep], mean[keep], sd[keep], recipe.scaling)
        self.numbers = [str(frame.columns[int(i)]) for i in keep]
        self.median, self.mean, self.sd = median[keep].tolist(), mean.tolist(), sd.tolist()
        if recipe.missing_indicators:
            self.indicated = [str(frame.columns[int(i)]) for i in keep if 0 < seen[:, i].mean() < 1]
        if recipe.components is not None and len(keep) > recipe.components:
            self.loadings = self._principal(self.scaled(filled[:, keep]), recipe.components)

    def _grouped(self, sets: Sets) -> dict[str, list[int]]:
        """Which of the columns that come out belong to each set: its genes, and the indicators of those."""
        if self.loadings is not None:
            raise UsageFault("pathways.scores=tokens sees the genes themselves; set components to null")
        at: dict[str, list[int]] = {name: [i] for i, name in enumerate(self.numbers)}
        for i, name in enumerate(self.indicated, start=len(self.numbers)):
            at[name].append(i)
        groups = {name: [i for c in own for i in at.get(c, ())] for name, own in sets.items()}
        groups = {name: columns for name, columns in groups.items() if columns}
        if not groups:
            raise DataFault("no gene set has a gene that varies among the training patients; see pathways.file")
        return groups

    @staticmethod
    def _principal(scaled: np.ndarray, components: int) -> list[list[float]]:
        _, spread, rows = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
        return loadings(rows[:components], spread[:components] ** 2 / len(scaled))

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Numbers [patient, number] as measured, imputed, scaled and clipped."""
        filled = np.where(np.isfinite(values), values, np.array(self.median))
        with np.errstate(over="ignore"):  # what overflows is clipped
            scaled = (filled - np.array(self.mean)) / np.array(self.sd)
        return scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)

    def _numeric(self, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        out = numeric_table(table[[name for name in names if name not in self.ordered]], "the table")
        for name in (name for name in names if name in self.ordered):
            rank = {value: float(i) for i, value in enumerate(self.ordered[name])}
            out[name] = table[name].map(lambda cell, rank=rank: rank.get(str(cell), np.nan)).astype(float)
        return out if list(out.columns) == list(names) else out[list(names)]

    def _logged(self, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """Numeric columns at their logarithm, and ordered ones at their rank."""
        if self.log == "none":
            return self._numeric(table, names)
        plain = [name for name in names if name not in self.ordered]
        frame = self._numeric(table, [*dict.fromkeys([*self.library, *plain])])
        logged = Transform(self.log, tuple(self.library))(frame)[plain]
        ranks = self._numeric(table, [name for name in names if name in self.ordered])
        return pd.concat([logged, ranks], axis=1)[list(names)]

    def measured(self, table: pd.DataFrame) -> np.ndarray:
        """The numbers of `numbers` before imputation, [patient, number]."""
        if self.pathways is not None:
            _there(table, [*self.library, *self.pathways.genes])
            return self.pathways(self._logged(table, self.pathways.genes))[self.numbers].to_numpy()
        _there(table, [*self.library, *self.numbers])
        return self._logged(table, self.numbers).to_numpy(dtype=float)

    def _parts(self, values: np.ndarray, table: pd.DataFrame) -> list[np.ndarray]:
        """Scaled numbers, indicators of what was missing, one-hot categories; each [patient, column]."""
        parts = [self.scaled(values)]
        if self.indicated:
            at = {name: i for i, name in enumerate(self.numbers)}
            parts.append(~np.isfinite(values)[:, [at[name] for name in self.indicated]])
        for name, values_of in self.categories.items():
            text = table[name].astype(str).to_numpy()
            parts.append(text[:, None] == np.array(values_of, dtype=str)[None, :])
        return parts

    def before_components(self, table: pd.DataFrame) -> np.ndarray:
        """Float64 [patient, column]: what `transform` gives, with the scaled numbers in the place of their components.

        The columns are those of `origins`; `middle` is their mean over the training patients.
        """
        _there(table, self.categories)
        values = self.measured(table).reshape(len(table), len(self.numbers))
        return np.concatenate(self._parts(values, table), axis=1).astype(float)

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """Float32 [patient, dim]; never NaN. Raises DataFault where a column of the training table is absent."""
        return self.components_of(self.before_components(table)).astype(np.float32)

    def components_of(self, columns: np.ndarray) -> np.ndarray:
        """[patient, dim] of [patient, column] as `before_components` gives them: a linear map, or nothing."""
        if self.loadings is None or self.wide:
            return columns
        n = len(self.numbers)
        return np.concatenate([columns[:, :n] @ np.array(self.loadings).T, columns[:, n:]], axis=1)

    @property
    def origins(self) -> list[str]:
        """Which column of the table (or score of a gene set) each column of `before_components` was made of."""
        return [*self.numbers, *self.indicated, *(name for name, of in self.categories.items() for _ in of)]

    def before_imputation(self, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """The scaled columns that the encoder reads, not clipped and NaN where not measured, and the cells that say
        what no training patient had: column -> bool [patient], of categories and ordered values.

        Categories come as 0/1 columns `name=value`, NaN where missing. Columns that the table lacks raise DataFault.
        """
        _there(table, self.categories)
        values = self.measured(table).reshape(len(table), len(self.numbers))  # of nobody too
        values = (values - np.array(self.mean)) / np.array(self.sd)
        columns, strange = dict(zip(self.numbers, values.T, strict=True)), {}
        own = {name: values for name, values in self.ordered.items() if name in self.numbers}
        for name, known in [*self.categories.items(), *own.items()]:
            text = table[name].astype(str).to_numpy()
            blank = np.isin(text, MISSING)
            strange[name] = ~blank & ~np.isin(text, known)
            if name in self.categories:
                columns |= {f"{name}={v}": np.where(blank, np.nan, (text == v).astype(float)) for v in known}
        return pd.DataFrame(columns, index=table.index), strange

    @property
    def narrow(self) -> TableEncoder:
        """The same encoder with components coming out, where it has some: what the learner's own encoder sees."""
        return replace(self, wide=False)

    @property
    def _number_names(self) -> list[str]:
        if self.loadings is None or self.wide:
            return self.numbers
        return [f"component {i + 1}" for i in range(len(self.loadings))]

    @property
    def names(self) -> list[str]:
        """Names of the columns that come out, in their order."""
        one_hot = [f"{name}={value}" for name, values in self.categories.items() for value in values]
        return [*self._number_names, *(f"{name} missing" for name in self.indicated), *one_hot]

    @property
    def sources(self) -> dict[str, list[int]]:
        """Which of the columns that come out were made of the same one: a number and its indicator, or a category.

        Each stands in one list. Principal components and scores are columns of their own.
        """
        names = self._number_names
        out = {name: [i] for i, name in enumerate(names)}
        at = len(names)
        for name in self.indicated:
            out.setdefault(name if names is self.numbers else f"{name} missing", []).append(at)
            at += 1
        for name, values in self.categories.items():
            if values:
                out.setdefault(name, []).extend(range(at, at + len(values)))
            at += len(values)
        return out

    @property
    def dim(self) -> int:
        """Number of columns that come out."""
        return len(self.names)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> TableEncoder:
        """The encoder that `state()` came from."""
        pathways = state.get("pathways")
        return cls(**{**state, "pathways": Pathways(**pathways) if pathways else None})


def loadings(axes: np.ndarray, variance: np.ndarray) -> list[list[float]]:
    """Loadings [component, column] of principal axes [component, column] that hold this variance [component], all
    scaled alike so that the components' mean variance is 1.

    >>> loadings(np.array([[0.0, -1.0]]), np.array([4.0]))
    [[0.0, 0.5]]
    """
    sign = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])  # the same on every machine
    return (np.asarray(axes * sign[:, None] / np.sqrt(np.mean(variance))).round(7) + 0.0).tolist()  # no -0


def _scale(filled: np.ndarray, mean: np.ndarray, sd: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """What is taken off and what is divided by. `robust`: median and IQR, in SD of a normal; SD where the IQR is 0."""
    if scaling == "none":
        return np.zeros_like(mean), np.ones_like(sd)
    if scaling == "standard" or not len(filled):
        return mean, sd
    low, middle, high = np.quantile(filled, [0.25, 0.5, 0.75], axis=0)
    wide = (high - low) / 1.349
    return middle, np.where(wide > 1e-9 * np.maximum(1.0, np.abs(middle)), wide, sd)


def _there(table: pd.DataFrame, names: Iterable[str]) -> None:
    absent = [name for name in dict.fromkeys(names) if name not in table.columns]
    if absent:
        raise DataFault(f"the table lacks {len(absent)} column(s) that the model needs: {', '.join(absent[:5])}")


def _nan(function: Any, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`function` over the rows, without the warning that an all-NaN column gives."""
    out = np.zeros(values.shape[1])
    some = seen.any(0)
    out[some] = function(values[:, some], axis=0)
    return out
