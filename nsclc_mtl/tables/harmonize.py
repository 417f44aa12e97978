"""ComBat: the location and scale of a site taken out of every column, shrunk over the columns by empirical Bayes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.kept_covariates import CovariateDesign, Kinds
from nsclc_mtl.tables.read import MISSING
from nsclc_mtl.tables.transform import Transform

UNSEEN = ("refuse", "pooled", "own")
"""What becomes of a patient whose site training does not know."""
FLAT = 1e-12  # variance within the sites, as a share of the mean square, below which a column counts as constant there
_ROUNDS = 1000


@dataclass
class Combat:
    """Columns without the effect of the site on their mean and spread; its state is plain JSON.

    The parametric model of Johnson, Li and Rabinovic (Biostatistics, 2007) with kept covariates as in Fortin et al.
    (NeuroImage, 2018): value = mean + covariates x slope + sd (shift of the site + scale of the site x noise). Shifts
    and scales of a site are shrunk towards their mean over its columns. Missing cells are left missing and enter no
    estimate. A site with fewer than `least` training patients is not fitted: it counts as unseen, and so does a site
    of which a column has fewer than two values, for that column.
    """

    columns: list[str] = field(default_factory=list)
    sites: dict[str, int] = field(default_factory=dict)  # fitted site -> its training patients
    mean: list[float] = field(default_factory=list)  # [column], at average covariates
    sd: list[float] = field(default_factory=list)  # [column], pooled within the sites
    flat: list[str] = field(default_factory=list)  # columns without variance within the sites: their mean alone moves
    slope: list[list[float]] = field(default_factory=list)  # [covariate column, column]
    shift: list[list[float]] = field(default_factory=list)  # [site, column], in sd
    scale: list[list[float]] = field(default_factory=list)  # [site, column], ratio of variances
    kept: dict[str, Any] = field(default_factory=dict)  # state of the CovariateDesign
    unseen: str = "pooled"
    least: int = 5
    reference: str | None = None
    log: str = "none"  # what is done to counts and the like before: sites are compared on the scale of the model
    library: list[str] = field(default_factory=list)  # as `Transform` has it

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        site: pd.Series,
        covariates: pd.DataFrame | None = None,
        kinds: Kinds | None = None,
        *,
        unseen: str = "pooled",
        least: int = 5,
        reference: str | None = None,
        change: Transform | None = None,
    ) -> Combat:
        """ComBat of these (training) patients. table: numeric, NaN where missing; site and covariates by patient.

        With fewer than two sites of `least` patients nothing is moved. `reference`: the site whose values stay as they
        are and to which the others are brought. `change`: the logarithm that values come to first. Raises UsageFault on
        a word that is none, DataFault where the reference is not fitted or a covariate cannot be told from the site.
        """
        if unseen not in UNSEEN:
            raise UsageFault(f"combat.unseen={unseen!r} is none of {', '.join(UNSEEN)}")
        if least < 2:
            raise UsageFault(f"combat.least={least} must be at least 2: one patient has no spread")
        named = named_sites(site.reindex(table.index))
        counts = named[named != ""].value_counts().sort_index()
        fitted = {str(s): int(n) for s, n in counts.items() if n >= least}
        if reference is not None and reference not in fitted:
            raise DataFault(
                f"combat.reference='{reference}' has {int(counts.get(reference, 0))} training patients of the fold, "
                f"combat.least={least}; name a larger site, or leave it null"
            )
        change = change or Transform()
        made = cls(unseen=unseen, least=least, reference=reference, log=change.log, library=list(change.library))
        table = made.on_scale(table)
        if len(fitted) < 2 or not table.shape[1]:
            return made
        made.columns, made.sites = [str(c) for c in table.columns], fitted
        rows = named.isin(fitted).to_numpy()
        given = covariates.reindex(table.index) if covariates is not None else pd.DataFrame(index=table.index)
        design = CovariateDesign.fit(given[rows], kinds or {})
        made.kept = design.state()
        values = _values(table)[rows]
        at = np.array([list(fitted).index(s) for s in named[rows]])
        made._estimate(values, at, design(given[rows]), np.isfinite(values))
        return made

    def _estimate(self, values: np.ndarray, at: np.ndarray, design: np.ndarray, seen: np.ndarray) -> None:
        """Least squares, then the shrunken shifts and scales. values [patient, column], at: number of the site."""
        sites, (n, p) = len(self.sites), values.shape
        count = np.stack([seen[at == s].sum(0) for s in range(sites)])  # [site, column]
        seen = seen & (count >= 2)[at]  # a single value says nothing of the site
        count = np.where(count >= 2, count, 0)
        level, slope = _least_squares(values, at, design, seen, sites, list(self.kept.get("kinds", ())))
        total = np.maximum(count.sum(0), 1)
        ours = None if self.reference is None else list(self.sites).index(self.reference)
        weight = count / total if ours is None else np.eye(sites)[ours][:, None] * (count > 0)
        mean = (weight * level).sum(0)
        apart = np.where(seen, values - level[at] - design @ slope, 0.0)
        inside = np.ones(n, bool) if ours is None else at == ours
        variance = (apart[inside] ** 2).sum(0) / np.maximum(seen[inside].sum(0), 1)
        usable = seen.any(0) if ours is None else count[ours] > 0
        square = np.where(seen, values**2, 0).sum(0) / total
        live = usable & (variance > FLAT * np.maximum(square, 1e-300))
        sd = np.where(live, np.sqrt(np.where(live, variance, 1.0)), 1.0)
        z = np.where(seen, (values - mean - design @ slope) / sd, np.nan)
        shift, scale = np.zeros((sites, p)), np.ones((sites, p))
        for s in range(sites):
            if s == ours:
                continue
            there = live & (count[s] > 0)
            shift[s, there], scale[s, there] = shrunken(z[at == s][:, there])
            still = usable & ~live & (count[s] > 0)
            shift[s, still] = level[s, still] - mean[still]
        self.mean, self.sd, self.slope = mean.tolist(), sd.tolist(), slope.tolist()
        self.flat = [c for c, moves in zip(self.columns, live, strict=True) if not moves]
        self.shift, self.scale = shift.tolist(), scale.tolist()

    def transform(self, table: pd.DataFrame, site: pd.Series, covariates: pd.DataFrame | None = None) -> pd.DataFrame:
        """The table without the effect of the sites; other columns, missing cells and the order of rows as they are.

        A patient of a site that was not fitted, or without a site, is left as it is (`pooled`: taken to lie where the
        pooled training patients lie), refused (`refuse`, DataFault), or moved by the shift and scale that the table's
        own patients of that site give (`own`; no outcome is used; `pooled` where they are fewer than `least`).
        """
        table = self.on_scale(table)
        if not self.columns:
            return table
        absent = [c for c in self.columns if c not in table]
        if absent:
            raise DataFault(
                f"the table lacks {len(absent)} column(s) that ComBat was fitted on: {', '.join(absent[:5])}"
            )
        named = named_sites(site.reindex(table.index))
        strange = self.strangers(named)
        if strange and self.unseen == "refuse":
            told = ", ".join(f"'{s}' ({n} patients)" for s, n in list(strange.items())[:5])
            raise DataFault(
                f"no training patient, or fewer than {self.least}, of the sites {told}: combat.unseen=refuse; set it "
                "to pooled (left as they are) or own (moved by their own mean and spread)"
            )
        given = covariates.reindex(table.index) if covariates is not None else pd.DataFrame(index=table.index)
        design = CovariateDesign(**self.kept)(given)
        mean = np.array(self.mean) + design @ np.array(self.slope).reshape(design.shape[1], len(self.columns))
        sd, values = np.array(self.sd), _values(table[self.columns])
        out = values.copy()
        for s, name in enumerate(self.sites):
            rows = (named == name).to_numpy()
            if name != self.reference:
                out[rows] = _moved(values[rows], mean[rows], sd, np.array(self.shift[s]), np.array(self.scale[s]))
        if self.unseen == "own":
            live = ~np.isin(self.columns, self.flat)
            for name in (s for s, n in strange.items() if s and n >= self.least):
                rows = (named == name).to_numpy()
                shift, scale = self._own((values[rows] - mean[rows]) / sd, live)
                out[rows] = _moved(values[rows], mean[rows], sd, shift, scale)
        made = table.copy()
        made[self.columns] = out
        return made

    def on_scale(self, table: pd.DataFrame) -> pd.DataFrame:
        """Numeric columns on the scale of the model, the others as they are."""
        if self.log == "none":
            return table
        if absent := [c for c in self.library if c not in table]:
            raise DataFault(f"the table lacks {len(absent)} column(s) of the library size: {', '.join(absent[:5])}")
        numbers = table[self.library] if self.library else table.select_dtypes("number")
        made = table.copy()
        made[numbers.columns] = Transform(self.log, tuple(self.library))(numbers)
        return made

    def _own(self, z: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale [column] of a site from its patients' standardised values."""
        shift, scale = np.zeros(len(live)), np.ones(len(live))
        enough = np.isfinite(z).sum(0) >= 2
        if (live & enough).any():
            shift[live & enough], scale[live & enough] = shrunken(z[:, live & enough])
        still = ~live & enough
        shift[still] = np.nanmean(z[:, still], axis=0)
        return shift, scale

    def strangers(self, site: pd.Series) -> dict[str, int]:
        """Sites that were not fitted, with their patients; '' are those without a site."""
        if not self.columns:
            return {}
        named = named_sites(site)
        return {str(s): int(n) for s, n in named[~named.isin(self.sites)].value_counts().sort_index().items()}

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Combat:
        """The ComBat that `state()` came from."""
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state})


def shrunken(z: np.ndarray, tolerance: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Shift and variance ratio of a site, each [column]: posterior modes under priors whose moments its columns give.

    z: standardised values [patient, column], NaN where missing, at least two a column. The two are found in turn until
    neither grows by `tolerance` of itself: the rule of the published code, its sign included, so that values agree with
    it to rounding. A single column has nothing to be shrunk towards.

    >>> shift, scale = shrunken(np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 8.0]]))
    >>> bool(shift[2] < 5.0), bool(shift[0] > 1.0)
    (True, True)
    """
    seen = np.isfinite(z)
    n = seen.sum(0)
    x = np.where(seen, z, 0.0)
    shift_hat = x.sum(0) / n
    scale_hat = (np.where(seen, x - shift_hat, 0.0) ** 2).sum(0) / (n - 1)
    scale_hat = np.where(scale_hat > 0, scale_hat, 1.0)
    if z.shape[1] < 2:
        return shift_hat, scale_hat
    centre, spread = shift_hat.mean(), shift_hat.var(ddof=1)
    m, v = scale_hat.mean(), scale_hat.var(ddof=1)
    if v <= 1e-12 * m**2:  # all columns spread alike: the prior is that value
        a, b = np.inf, np.inf
    else:
        a, b = (2 * v + m**2) / v, (m * v + m**3) / v  # inverse gamma of this mean and variance
    shift, scale = shift_hat, scale_hat
    for _ in range(_ROUNDS):
        new = (spread * n * shift_hat + scale * centre) / np.maximum(spread * n + scale, 1e-300)
        squares = (np.where(seen, x - new, 0.0) ** 2).sum(0)
        wide = np.full(len(n), m) if np.isinf(a) else (0.5 * squares + b) / (n / 2 + a - 1)
        change = max(_change(new, shift), _change(wide, scale))
        shift, scale = new, wide
        if change <= tolerance:
            break
    return shift, scale


def _change(new: np.ndarray, old: np.ndarray) -> float:
    return float(np.divide(np.abs(new - old), old, out=np.zeros(len(new)), where=old != 0).max(initial=0.0))


def _least_squares(
    values: np.ndarray, at: np.ndarray, design: np.ndarray, seen: np.ndarray, sites: int, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Level of every site [site, column] and slope of every covariate [covariate column, column], column by column."""
    whole = np.concatenate([np.eye(sites)[at], design], axis=1)
    found = np.zeros((whole.shape[1], values.shape[1]))
    patterns, which = np.unique(seen, axis=1, return_inverse=True)
    for i, rows in enumerate(patterns.T):
        used = np.r_[[bool((rows & (at == s)).any()) for s in range(sites)], np.ones(design.shape[1], bool)]
        if not rows.any():
            continue
        some = whole[np.ix_(rows, used)]
        # a column with too few cells for its covariates gets the smallest slopes; of all patients: confounded
        if np.linalg.matrix_rank(some) < some.shape[1] and np.linalg.matrix_rank(whole) < whole.shape[1]:
            raise DataFault(
                f"combat.covariates: {', '.join(names) or 'they'} cannot be told from the site among the training "
                "patients (each site has values of its own); leave such a covariate out"
            )
        alike = np.flatnonzero(np.ravel(which) == i)
        found[np.ix_(used, alike)] = np.linalg.lstsq(some, values[np.ix_(rows, alike)], rcond=None)[0]
    return found[:sites], found[sites:]


def _moved(values: np.ndarray, mean: np.ndarray, sd: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(((values - mean) / sd - shift) / np.sqrt(scale) * sd + mean)


def named_sites(site: pd.Series) -> pd.Series:
    """Sites as text, '' where there is none."""
    text = site.astype(object).where(site.notna(), "").astype(str).str.strip()
    return text.mask(text.isin(MISSING), "")


def _values(table: pd.DataFrame) -> np.ndarray:
    cells = table.to_numpy(dtype=float)
    return np.where(np.isfinite(cells), cells, np.nan)
