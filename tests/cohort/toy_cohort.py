"""A small cohort for the linter's tests: the phantom's outcomes and absences, with tables that know nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nsclc_mtl.cohort import lint, splits
from nsclc_mtl.cohort.lint.finding import Finding
from nsclc_mtl.phantom import truth
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec

CLINICAL, OMICS = ModalitySpec("clinical", "clinical"), ModalitySpec("rna", "omics")


def cohort(n: int = 120, seed: int = 0, missing: str = "mcar", site: str = "none") -> Manifest:
    """The phantom's outcomes and absences, with small tables that know nothing."""
    drawn = truth.draw(n, seed, missing, site)
    index = pd.Index(drawn.patients["patient_id"])
    out, rng = drawn.outcomes, np.random.default_rng(seed)
    kinds = {"grade": truth.GRADES, "stage": truth.STAGES, "response": truth.RESPONSES}
    tasks = {
        name: TaskSpec(name, "binary" if name == "response" else "ordinal", tuple(words), (name,))
        for name, words in kinds.items()
    }
    tasks["survival"] = TaskSpec("survival", "survival", columns=("os_status", "os_days"))
    labels = {
        name: pd.DataFrame({"value": np.where(drawn.known[name], out[name], np.nan)}, index=index) for name in kinds
    }
    seen = drawn.known["survival"]
    labels["survival"] = pd.DataFrame(
        {"event": np.where(seen, out["os_event"], np.nan), "time_days": np.where(seen, out["os_days"] * 1.0, np.nan)},
        index=index,
    )
    clinical = pd.DataFrame({"age": rng.integers(40, 85, n) * 1.0, "sex": rng.choice(["f", "m"], n)}, index=index)
    rna = pd.DataFrame(rng.normal(size=(n, 40)), index=index, columns=[f"G{i}" for i in range(40)])
    return Manifest(
        "toy", drawn.patients.set_index("patient_id"), tasks, {"clinical": CLINICAL, "rna": OMICS}, labels,
        tables={"clinical": clinical, "rna": rna[drawn.has["radiomics"]]},
    )  # fmt: skip


def findings(manifest: Manifest, **words: object) -> list[Finding]:
    """The findings on three folds."""
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=0)
    return lint.check(manifest, dealt, **words).findings  # type: ignore[arg-type]
