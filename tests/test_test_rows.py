"""Nothing of the test patients reaches what is fitted: their rows may be anything, values and labels, in all tables."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.fitted import fit
from nsclc_mtl.cohort import manifest as cohorts
from nsclc_mtl.config import execute
from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.features import store
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import Repeated

LABELS = {
    "grade": ["G1", "G2", "G3"],
    "stage": ["I", "II", "III", "IV"],
    "response": ["non-responder", "responder"],
    "os_status": ["deceased", "alive"],
}
COVARIATES = {"sex": ["f", "m", "x"], "smoking": ["never", "current"], "site": ["A", "B", "Z"]}
OPTIONS = {
    "rna": {"select": "univariate", "keep": 40, "components": 5},
    "copies": {"select": "variance", "keep": 9, "scaling": "robust"},
    "proteomics": {},
    "tokens": {"scores": "tokens"},
    "radiomics": {"components": 6},
    "clinical": {},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of 48 patients with gene sets, a table with repeated columns, and one fold in a file."""
    root = make(tmp_path_factory.mktemp("rows") / "data", level="features", n=48, seed=2)
    (root / "phantom.json").unlink()  # a cohort as any other
    names = list(pd.read_csv(root / "proteomics.csv", nrows=1).columns[1:])
    sets = [f"SET{i}\tna\t" + "\t".join(names[7 * i : 7 * i + 12]) for i in range(6)]
    (root / "sets.gmt").write_text("\n".join(sets) + "\n")
    rna = pd.read_csv(root / "rna.csv", dtype=str).iloc[:, :21]
    rna.columns = ["patient_id", *[f"G{i // 2}" for i in range(20)]]
    rna.to_csv(root / "copies.csv", index=False)
    ids = list(pd.read_csv(root / "patients.csv", dtype=str)["patient_id"])
    parts = ["test" if i % 4 == 0 else "validation" if i % 4 == 1 and i < 20 else "train" for i in range(len(ids))]
    pd.DataFrame({"patient_id": ids, "fold": 0, "part": parts}).to_csv(root / "folds.csv", index=False)
    return root


def declared(root: Path) -> dict:
    """The phantom's declaration with another name, and every step that is fitted on a table."""
    told = yaml.safe_load((conf_root() / "cohort" / "phantom.yaml").read_text())
    for word in ("level", "n", "seed", "missing", "extras"):
        del told[word]
    told.pop("site")
    sets = {"file": "sets.gmt", "scores": "plage"}
    rooms = {name: told["modalities"][name] for name in ("wsi", "radiomics", "rna", "proteomics", "clinical")}
    rooms["proteomics"]["pathways"] = sets
    rooms["copies"] = {"kind": "omics", "file": "copies.csv", "duplicate_columns": "max_variance"}
    rooms["tokens"] = {"kind": "pathways", "file": "proteomics.csv", "pathways": {"file": "sets.gmt"}}
    for name in ("rna", "copies"):
        rooms[name] |= OPTIONS[name]
    return {**told, "name": "rows", "root": str(root), "modalities": rooms}


def held_out(root: Path) -> list[str]:
    folds = pd.read_csv(root / "folds.csv", dtype=str)
    return list(folds.loc[folds["part"] == "test", "patient_id"])


def spoil(root: Path, seed: int) -> None:
    """Other values and labels for every test patient, in every table and every bag; a tenth of the cells is blank."""
    rng, test = np.random.default_rng(seed), held_out(root)
    for file in ("rna.csv", "copies.csv", "proteomics.csv", "radiomics.csv"):
        header = (root / file).read_text().split("\n", 1)[0].split(",")
        table = pd.read_csv(root / file, dtype=str, keep_default_na=False)
        rows = table["patient_id"].isin(test).to_numpy()
        values = (rng.normal(50, 1000, (rows.sum(), table.shape[1] - 1))).round(2).astype(str).astype(object)
        values[rng.random(values.shape) < 0.1] = ""
        table.iloc[rows, 1:] = values
        table.columns = pd.Index(header)
        table.to_csv(root / file, index=False)
    patients = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False)
    rows = patients["patient_id"].isin(test).to_numpy()
    for column, words in {**LABELS, **COVARIATES}.items():
        patients.loc[rows, column] = rng.choice(words, rows.sum())
    for column, low, high in (("age", 1, 400), ("os_days", 1, 90_000)):
        patients.loc[rows, column] = rng.integers(low, high, rows.sum()).astype(str)
    patients.to_csv(root / "patients.csv", index=False)
    slides = pd.read_csv(root / "slides.csv", dtype=str)
    for path in slides.loc[slides["patient_id"].isin(test), "path"]:
        features = store.read(root / path)
        features.features = rng.normal(3, 9, features.features.shape).astype(np.float16)
        (root / path).unlink()
        store.write(root / path, features)


def fitted(root: Path) -> str:
    """Digest of everything that is fitted on the fold's training patients, radiomics judged under perturbed masks."""
    manifest = cohorts.load(declared(root), root / "out")
    drawn = manifest.tables["radiomics"]
    again = pd.concat(
        {
            mask: drawn * (1 + 0.01 * k)
            + np.linspace(0, 9, drawn.shape[1]) * np.sin(k * np.arange(len(drawn)))[:, None]
            for k, mask in enumerate(("eroded", "dilated"), start=1)
        },
        names=["perturbation", "patient_id"],
    ).swaplevel()
    manifest.repeated["radiomics"] = Repeated(again, 0.5)
    train = [p for p in manifest.ids if p not in set(held_out(root))]
    made = fit(manifest, train, BagCache(), OPTIONS)
    assert 0 < len(made.robust["radiomics"]["kept"]) < drawn.shape[1]
    assert made.tables["proteomics"].pathways is not None
    assert made.tables["rna"].loadings is not None
    assert made.tables["tokens"].groups
    return hashlib.sha256(json.dumps(made.state()).encode()).hexdigest()


def test_what_is_fitted_on_tables_and_bags_does_not_know_the_test_patients(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    before = fitted(root)
    spoil(root, 0)
    assert fitted(root) == before
    patients = pd.read_csv(
        root / "patients.csv", dtype=str, keep_default_na=False
    )  # and it would notice a training row
    patients.loc[~patients["patient_id"].isin(held_out(root)), "age"] = "60"
    patients.to_csv(root / "patients.csv", index=False)
    assert fitted(root) != before


def digests(folder: Path) -> dict[str, str]:
    """Of fitted.json, and of every weight of the model."""
    weights = torch.load(folder / "model0.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    every = hashlib.sha256()
    for name in sorted(weights):
        every.update(name.encode() + weights[name].numpy().tobytes())
    return {
        "fitted.json": hashlib.sha256((folder / "fitted.json").read_bytes()).hexdigest(),
        "weights": every.hexdigest(),
    }


@pytest.mark.slow
def test_training_does_not_know_the_test_patients(data: Path, tmp_path: Path) -> None:
    """`mtl train` twice, before and after every row of the test patients was changed: the same artefacts."""
    root = Path(shutil.copytree(data, tmp_path / "data"))
    conf = tmp_path / "conf" / "cohort"
    conf.mkdir(parents=True)
    (conf / "rows.yaml").write_text(yaml.safe_dump(declared(root)))
    body = import_module("nsclc_mtl.commands.train").body
    words = [
        "cohort=rows", f"paths.runs={tmp_path / 'runs'}", f"paths.out={tmp_path / 'out'}", "fold=0",
        f"folds.file={root / 'folds.csv'}", "folds.workers=0", "folds.min_events=2", "trainer.max_epochs=2",
        "optim.min_steps=1", "audit=0", "device=cpu", "logger=none",
    ]  # fmt: skip
    made = {}
    for name in ("before", "after"):
        assert execute("train", [*words, f"name={name}"], lambda: body, conf_dirs=[tmp_path / "conf"]) == 0
        made[name] = digests(tmp_path / "runs" / "train" / name / "fold0")
        spoil(root, 1)
    assert made["before"] == made["after"]
    said = [pd.read_csv(tmp_path / "runs" / "train" / name / "predictions.csv") for name in ("before", "after")]
    test = [frame.loc[frame["part"] == "test", "value"].to_numpy() for frame in said]
    assert not np.allclose(*test)  # what was changed did reach the predictions
