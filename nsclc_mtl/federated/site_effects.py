"""ComBat over sites that do not pool their tables: the sums that each tells, and what the server makes of them.

The model and its estimates are those of `tables.harmonize.Combat`. Least squares on site and covariates need sums of
products within each site alone; the shrinkage of a site's shifts and scales needs that site's patients alone, and is
done there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.bags.sites import wanted
from nsclc_mtl.federated.messages import Message
from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.harmonize import FLAT, UNSEEN, Combat, shrunken
from nsclc_mtl.tables.kept_covariates import CovariateDesign, kept_covariates
from nsclc_mtl.tables.moments import Moments, together
from nsclc_mtl.tables.read import MISSING

if TYPE_CHECKING:
    from nsclc_mtl.federated.fitting import Declared
    from nsclc_mtl.federated.summaries import Own

Ask = Callable[..., dict[str, Message]]


# ---------------------------------------------------------------------------------------------------------------------
# At a site
# ---------------------------------------------------------------------------------------------------------------------


def levels(own: Own, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Patients of the table, the kinds of its covariates, and levels that at least `least` of them have."""
    rows = own.rows(name)
    frame, kinds = kept_covariates(own.manifest, said["covariates"] or ())
    frame = frame.reindex(rows.index)
    found = {}
    for column in (c for c, kind in kinds.items() if kind == "categorical"):
        count = Counter(frame[column].astype(str))
        found[column] = sorted(v for v, n in count.items() if n >= own.least and v not in MISSING)
    return {"patients": len(rows), "kinds": kinds, "levels": found}


def covariates(own: Own, name: str, said: Mapping[str, Any]) -> Moments:
    """Moments of the columns of the covariates, not centred yet."""
    return Moments.of(_design(own, name, said, missing=True), own.least)


def sums(own: Own, name: str, said: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Number and means of values y [column] and covariates x [column, covariate], and sums of products about them."""
    values, x = _values(own, name, said), _design(own, name, said)
    seen = np.isfinite(values)
    n = seen.sum(0).astype(float)
    most = np.maximum(n, 1)
    y = np.where(seen, values, 0.0)
    mean_y, mean_x = y.sum(0) / most, (seen.T @ x) / most[:, None]
    apart = np.where(seen, y - mean_y, 0.0)
    xx = np.einsum("pc,pi,pj->cij", seen.astype(float), x, x) - n[:, None, None] * mean_x[:, :, None] * mean_x[:, None]
    return {
        "n": n, "y": mean_y, "x": mean_x, "yy": (apart**2).sum(0), "xy": apart.T @ x, "xx": xx,
    }  # fmt: skip


def own_shift(own: Own, name: str, said: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale [column] of the site under the common mean, spread and slopes; 0 and 1 where it has none."""
    made = Combat.load(said["combat"])
    values, x = _values(own, name, {**said, "kept": made.kept}), _design(own, name, {**said, "kept": made.kept})
    shift, scale = np.zeros(len(made.columns)), np.ones(len(made.columns))
    slope = np.array(made.slope).reshape(x.shape[1], len(made.columns))
    z = (values - np.array(made.mean) - x @ slope) / np.array(made.sd)
    there = np.isfinite(values).sum(0) >= 2
    live = ~np.isin(made.columns, made.flat) & there
    if live.any():
        shift[live], scale[live] = shrunken(z[:, live])
    still = np.isin(made.columns, made.flat) & there
    shift[still] = np.nanmean(z[:, still], axis=0) if still.any() else 0.0
    return shift, scale


def _values(own: Own, name: str, said: Mapping[str, Any]) -> np.ndarray:
    """The table's numbers [patient, column] on the scale on which sites are compared, NaN where not told."""
    change = Combat(log=said["log"], library=list(said["library"]))
    rows = own.rows(name)
    values = (
        change.on_scale(rows)[said["columns"]].to_numpy(float) if len(rows) else np.zeros((0, len(said["columns"])))
    )
    values = np.where(np.isfinite(values), values, np.nan)
    return np.where(np.isfinite(values).sum(0) >= own.least, values, np.nan)


def _design(own: Own, name: str, said: Mapping[str, Any], missing: bool = False) -> np.ndarray:
    """Covariates [patient, covariate], centred; with `missing` NaN where not known."""
    design = CovariateDesign(**said["kept"])
    frame, _ = kept_covariates(own.manifest, design.kinds)
    frame = frame.reindex(own.rows(name).index)
    return design.raw(frame) if missing else design(frame)


# ---------------------------------------------------------------------------------------------------------------------
# At the server
# ---------------------------------------------------------------------------------------------------------------------


def fit(ask: Ask, declared: Declared, drafts: Mapping[str, TableEncoder]) -> dict[str, Combat]:
    """ComBat of every table that asks for it, from the sums of the sites. Raises what `Combat.fit` raises."""
    tables: dict[str, dict[str, Any]] = {}
    for name, draft in drafts.items():
        options = declared.options[name]
        if not wanted(name, options):
            continue
        own = dict(options.get("combat") or {})
        if own.get("unseen", "pooled") not in UNSEEN:
            raise UsageFault(f"combat.unseen={own['unseen']!r} is none of {', '.join(UNSEEN)}")
        tables[name] = {
            "columns": draft.numbers, "log": draft.log, "library": draft.library, "options": own,
            "covariates": own.get("covariates") or {},
        }  # fmt: skip
    if not tables:
        return {}
    found = ask("levels", {"tables": tables})
    for name, said in tables.items():
        words = [found[site].words[name] for site in sorted(found)]
        kinds: dict[str, Any] = next((of["kinds"] for of in words if of["patients"]), {})
        known = {c: sorted({v for of in words for v in of["levels"].get(c, ())})[1:] for c in words[0]["levels"]}
        said["kept"] = CovariateDesign(kinds, known).state()
    answers = ask("centres", {"tables": tables})
    for name, said in tables.items():
        said["kept"]["centre"] = together([_told(m, name) for m in answers.values()]).mean.tolist()
    answers = ask("lines", {"tables": tables})
    made = {}
    for name, said in tables.items():
        patients = {site: int(found[site].words[name]["patients"]) for site in sorted(found)}
        made[name] = _estimated(said, patients, answers, name)
    live = {name: {**tables[name], "combat": of.state()} for name, of in made.items() if of.columns}
    answers = ask("shifts", {"tables": live}) if live else {}
    for name in live:
        of = made[name]
        still = {s: s == of.reference for s in of.sites}
        zero, one = np.zeros(len(of.columns)), np.ones(len(of.columns))
        of.shift = [(zero if still[s] else answers[s].arrays[f"{name}/shift"]).tolist() for s in of.sites]
        of.scale = [(one if still[s] else answers[s].arrays[f"{name}/scale"]).tolist() for s in of.sites]
    return made


def _estimated(
    said: Mapping[str, Any], patients: Mapping[str, int], answers: Mapping[str, Message], name: str
) -> Combat:
    """Mean, spread and slopes of the columns, [column], by least squares over the sites' sums."""
    own = dict(said["options"])
    least, reference = int(own.get("least", 5)), own.get("reference")
    sites = {site: n for site, n in patients.items() if n >= least}
    if reference is not None and reference not in sites:
        raise DataFault(
            f"combat.reference='{reference}' is no site with combat.least={least} training patients; name another, or "
            "leave it null"
        )
    words = {"unseen": str(own.get("unseen", "pooled")), "least": least, "reference": reference}
    made = Combat(**words, log=said["log"], library=list(said["library"]))  # type: ignore[arg-type]
    if len(sites) < 2 or not said["columns"]:
        return made
    made.columns, made.sites, made.kept = list(said["columns"]), sites, dict(said["kept"])
    n, y, x, yy, xy, xx = (
        np.stack([answers[site].arrays[f"{name}/{word}"] for site in sites])
        for word in ("n", "y", "x", "yy", "xy", "xx")
    )  # [site, column, ...]
    n = np.where(n >= 2, n, 0.0)
    used = (n > 0).astype(float)
    within, across = (used[..., None, None] * xx).sum(0), (used[..., None] * xy).sum(0)
    slope = np.einsum("cij,cj->ci", np.linalg.pinv(within, rcond=1e-10, hermitian=True), across)  # [column, covariate]
    level = y - np.einsum("sci,ci->sc", x, slope)
    rest = used * (yy - 2 * np.einsum("sci,ci->sc", xy, slope) + np.einsum("ci,scij,cj->sc", slope, xx, slope))
    total = np.maximum(n.sum(0), 1)
    inside = np.eye(len(sites))[list(sites).index(reference)][:, None] * used if reference is not None else used
    weight = n / total if reference is None else inside
    mean = (weight * level).sum(0)
    variance = (inside * np.maximum(rest, 0.0)).sum(0) / np.maximum((inside * n).sum(0), 1)
    square = (used * (yy + n * y**2)).sum(0) / total
    live = (inside.sum(0) > 0) & (variance > FLAT * np.maximum(square, 1e-300))
    made.mean, made.slope = mean.tolist(), slope.T.tolist()
    made.sd = np.where(live, np.sqrt(np.where(live, variance, 1.0)), 1.0).tolist()
    made.flat = [c for c, moves in zip(made.columns, live, strict=True) if not moves]
    return made


def _told(message: Message, name: str) -> Moments:
    return Moments(*(message.arrays[f"{name}/{word}"] for word in ("n", "mean", "square")))
