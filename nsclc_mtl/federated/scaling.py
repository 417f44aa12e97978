"""Inputs scaled by a site's own patients: what differs between scanners, stains and laboratories stays at the site."""

from __future__ import annotations

import numpy as np

from nsclc_mtl.bags.fitted import Fitted, tile_moments, tile_scale
from nsclc_mtl.federated.summaries import Own
from nsclc_mtl.tables.moments import Moments


def by_own(fitted: Fitted, own: Own) -> None:
    """Changes mean and SD of every number and of tile features to those of the site's own training patients.

    Medians, categories, selected columns and components stay common. What fewer than `least` patients have, and a
    column that does not vary here, keeps the common scale.
    """
    combat = {name: of.state() for name, of in fitted.combat.items()}
    for name, encoder in fitted.tables.items():
        said = {"drafts": {name: encoder.state()}, "combat": combat}
        _, values = own.numbers(name, said)
        of = Moments.of(np.where(np.isfinite(values), values, np.array(encoder.median)), own.least)
        good = (of.n >= own.least) & (of.sd > 1e-9 * np.maximum(1.0, np.abs(of.mean)))
        encoder.mean = np.where(good, of.mean, encoder.mean).tolist()
        encoder.sd = np.where(good, of.sd, encoder.sd).tolist()
        rows = own.rows(name)
        if len(rows):
            made = encoder.before_components(own.harmonised(rows, name, said))
            encoder.middle = made.mean(axis=0).round(7).tolist()
    for name in fitted.bags:
        paths = own.manifest.bags.get(name, {})
        each = tile_moments([paths[p] for p in own.train if p in paths], own.cache)
        if len(each) >= own.least:
            fitted.bags[name] = tile_scale(np.mean([m for m, _ in each], axis=0), np.mean([s for _, s in each], axis=0))
