"""The experiments that rebuild published systems: they train on tables as their cohort files say."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nsclc_mtl.cohort.specs import task_spec
from nsclc_mtl.commands.assemble import dependencies
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.features import store
from nsclc_mtl.records import Features, UsageFault

N = 48
CONF = Path(__file__).resolve().parent.parent / "conf"
NSCLC = sorted(p.stem for p in (CONF / "experiment").glob("nsclc_grading*.yaml"))
MOEMIL = sorted(p.stem for p in (CONF / "experiment").glob("moemil_response*.yaml"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the tables of both cohorts; a third of the patients lack each modality."""
    root, rng = tmp_path_factory.mktemp("cohort"), np.random.Generator(np.random.PCG64(1))
    ids = [f"P{i:03d}" for i in range(N)]
    draw = lambda *words: rng.choice(words, N)  # noqa: E731
    table = {
        "site": draw("A", "B"), "grade": draw("G1", "G2", "G3"), "subtype": draw("adenocarcinoma", "squamous", "other"),
        "stage_group": draw("IA", "IB", "IIA", "IIIA", "IV"), "stage": draw("I", "II", "III", "IV"),
        "t": draw("T1", "T2", "T3"), "n": draw("N0", "N1", "N2"), "m": draw("M0", "M0", "M1"),
        "response": draw("responder", "non-responder"), "os_status": draw("deceased", "alive"),
        "dfs_status": draw("event", "free"), "age": rng.integers(40, 80, N), "sex": draw("f", "m"),
        "smoking": draw("never", "former", "current"),
        "os_days": rng.integers(30, 2500, N), "dfs_days": rng.integers(30, 2000, N),
    }  # fmt: skip
    pd.DataFrame(table, ids).to_csv(root / "patients.csv", index_label="patient_id")
    have = lambda: [p for p in ids if rng.random() < 0.67]  # noqa: E731
    for name, columns in [("ct_radiomics", 12), ("mr_radiomics", 12), ("rna", 30), ("proteomics", 20)]:
        rows = have()
        values = pd.DataFrame(rng.normal(size=(len(rows), columns)), rows).add_prefix("f")
        values.to_csv(root / f"{name}.csv", index_label="patient_id")
    slides = []
    for patient in have():
        tiles = int(rng.integers(3, 9))
        coords = np.stack([np.arange(tiles) * 512, np.zeros(tiles, np.int64)], axis=1)
        store.write(root / f"{patient}.h5", Features(rng.normal(size=(tiles, 8)), coords, {"patch_size_level0": 512}))
        slides.append((f"S{patient}", patient, f"{patient}.h5"))
    pd.DataFrame(slides, columns=["slide_id", "patient_id", "path"]).to_csv(root / "slides.csv", index=False)
    return root


@pytest.mark.parametrize("experiment", ["nsclc_grading", "nsclc_grading_tnm", "moemil_response"])
def test_an_experiment_trains_on_what_its_cohort_file_names(
    experiment: str, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"experiment={experiment}", f"cohort.root={cohort}", "name=run", "fold=0", "folds.n=2", "folds.workers=0"]
    load = lambda: import_module("nsclc_mtl.commands.train").body  # noqa: E731
    assert execute("train", [*words, "trainer.max_epochs=1", "optim.min_steps=1", "audit=0"], load) == 0
    run = tmp_path / "runs" / "train" / "run"
    told = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    config = yaml.safe_load((run / "config.yaml").read_text())
    tasks = config["tasks"] or list(config["cohort"]["tasks"])
    assert set(told["task"]) == set(tasks)
    survival = told[told["task"] == "overall_survival"]
    assert {"surv:365", "surv:1095", "surv:1825"} <= set(survival["output"])  # 1, 3 and 5 years


def test_survival_reads_subtype_and_stage_in_the_cascade_alone() -> None:
    for experiment in ("nsclc_grading", "nsclc_grading_cascade"):
        settings = plain(compose("train", [f"experiment={experiment}"]))
        specs = {name: task_spec(name, said) for name, said in settings["cohort"]["tasks"].items()}
        after = ["subtype", "stage"] if experiment == "nsclc_grading_cascade" else []
        survival = dict.fromkeys(["overall_survival", "disease_free_survival"], after)
        assert dependencies(settings, specs) == {"grade": [], "subtype": [], "stage": [], **survival}


def test_tnm_alone_is_a_comparator_of_all_tasks_but_the_stage_that_is_made_of_it() -> None:
    cfg = compose("train", ["experiment=nsclc_grading_tnm"])
    assert list(cfg.tasks) == [name for name in cfg.cohort.tasks if name != "stage"]


@pytest.mark.parametrize("experiment", [*NSCLC, *MOEMIL])
def test_every_experiment_composes_and_its_comparators_see_less(experiment: str) -> None:
    cfg = compose("train", [f"experiment={experiment}"])
    base = "nsclc_grading" if experiment in NSCLC else "moemil_response"
    if cfg.modalities is not None:
        assert experiment != base
        assert set(cfg.modalities) <= set(cfg.cohort.modalities)
    with pytest.raises(UsageFault, match="both set the model"):
        compose("train", [f"experiment={experiment}", "model=concat_mil"])
