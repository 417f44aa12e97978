"""Cox over sites: trained, with a baseline of the site's own patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands import federation
from nsclc_mtl.commands.members import quiet
from nsclc_mtl.federated.inside import InProcess
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.site import Site
from tests.federated.small import opened, settings_of
from tests.federated.test_rounds import served


@pytest.mark.slow
def test_curves_stand_on_the_sites_own_baseline(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "out", "survival=cox", "federated.rounds=1")
    manifest, splits, named = opened(settings)
    plan, declared = Plan.of(settings["federated"]), federation.declared(settings, manifest)
    sites = {}
    for name, ids in named.items():
        parts = federation.Configured(settings, declared, tmp_path / name)
        own = splits[splits["patient_id"].isin(ids)]
        sites[name] = Site(name, federation.only(manifest, ids), own, plan, parts)
    with quiet():
        served(settings, InProcess(sites)).train(0, 0, federation.steps(settings))
    curves = []
    for name in sites:
        said = pd.read_csv(tmp_path / name / "fold0" / "predictions.csv", dtype={"patient_id": str})
        test = said[(said["part"] == "test") & (said["task"] == "survival")]
        wide = test.pivot_table(index="patient_id", columns="output", values="value")
        surv = wide[[c for c in wide if c.startswith("surv:")]]
        assert surv.to_numpy().min() >= 0
        assert surv.to_numpy().max() <= 1
        assert np.ptp(surv["surv:1095"]) > 0
        curves.append(surv["surv:1095"].mean())
    assert np.ptp(curves) > 1e-3  # the baselines are not one
