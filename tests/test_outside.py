"""Bundles, patients from elsewhere, and predictions that were locked before the outcomes: through the verbs."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from plain_metrics import threshold
from test_way import Way
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.commands import bundled, evaluations
from nsclc_mtl.commands.sealed import seal
from nsclc_mtl.commands.trained import read_table
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import IntegrityFault

WORDS = (
    "modalities=[clinical,rna]", "tasks=[stage,response,survival]", "audit=0", "folds.calibration=0.15", "cohort.n=80",
)  # fmt: skip


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A run and its bundle; patients from elsewhere, once with inputs alike and once of other scanners."""
    made = Way(tmp_path_factory.mktemp("outside"))
    made.data = make(made.root / "eighty", level="features", n=80, seed=0)
    assert made.train("whole", *WORDS) == 0
    assert made.run("bundle", "b", f"ckpt={made.folder()}") == 0
    make(made.root / "alike", level="features", n=60, seed=5)
    make(made.root / "shifted", level="features", n=60, seed=5, site="shift")
    return made


@pytest.fixture
def bundle(way: Way, tmp_path: Path) -> Path:
    return Path(shutil.copytree(way.folder("bundle", "b") / "bundle", tmp_path / "bundle"))


def other(way: Way, which: str = "alike") -> tuple[str, ...]:
    return ("cohort=phantom", "cohort.level=features", "cohort.n=60", f"cohort.root={way.root / which}")


def judge(way: Way, name: str, ckpt: Path, *words: str) -> int:
    return way.run("evaluate", name, f"ckpt={ckpt}", "bootstrap=10", *words)


def rows_of(way: Way, name: str) -> list[dict[str, Any]]:
    return json.loads((way.folder("evaluate", name) / "metrics.json").read_text())


def sealed(folder: Path) -> None:
    """As somebody who knows the format would write the manifest."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.sha256")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "manifest.sha256").write_text("".join(lines))


# -- the bundle -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bundle_predicts_and_evaluates_like_its_run(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    packed = way.folder("bundle", "b") / "bundle"
    for name, ckpt in (("run", way.folder()), ("packed", packed)):
        assert way.predict(name, *other(way), ckpt=ckpt) == 0
        assert judge(way, name, ckpt, *other(way), "floors=[clinical]") == 0
    said = capsys.readouterr().out
    assert "no floors: they are fitted on training patients, whom a bundle does not hold" in said
    for verb, name in (("predict", "predictions.csv"), ("predict", "patients.csv"), ("evaluate", "predictions.csv")):
        assert (way.folder(verb, "run") / name).read_bytes() == (way.folder(verb, "packed") / name).read_bytes()
    models = {}
    for name in ("run", "packed"):
        models[name] = [
            r for r in rows_of(way, name) if r["model"] == "learner" and not r["metric"].startswith("difference:")
        ]
    assert models["run"] == models["packed"]
    told = {r["metric"]: r["value"] for r in models["run"] if r["task"] == "survival" and r["fold"] == "all"}
    weighed = {"uno_c", "auc_1y", "brier_1y", "ibs", "ipa"}  # G of the training patients is in both
    for metric in weighed | {f"own_censoring:{m}" for m in (*weighed, "bound_coverage")} | {"bound_coverage"}:
        assert told[metric] is not None, metric
    # called at the mean of the thresholds that the folds' training patients fix, floors at that of theirs
    before = way.table("train", "whole").query("task == 'response' and part == 'train' and output == 'p:responder'")
    before = before[before["target"].isin(["non-responder", "responder"])]  # the response of some is not known
    cuts = [
        threshold((rows["target"] == "responder").to_numpy(int), rows["value"].to_numpy(float))
        for _, rows in before.groupby("fold")
    ]
    said = way.table("evaluate", "run").query("task == 'response' and output == 'p:responder'")
    called = said["value"].astype(float) >= sum(cuts) / len(cuts)
    of = {r["metric"]: r["value"] for r in models["run"] if r["task"] == "response" and r["fold"] == "all"}
    assert of["sensitivity"] == pytest.approx(called[said["target"] == "responder"].mean())
    assert of["specificity"] == pytest.approx(1 - called[said["target"] == "non-responder"].mean())
    floor = [r for r in rows_of(way, "run") if (r["metric"], r["model"]) == ("sensitivity", "floor:clinical")]
    assert all(r["value"] is not None for r in floor)
    assert floor
    page = (way.folder("evaluate", "packed") / "report.html").read_text()
    assert "Censoring here and in the training" in page
    # one fold of it is that fold
    for name, ckpt in (("run1", way.folder() / "fold1"), ("packed1", packed / "fold1")):
        assert way.predict(name, *other(way), ckpt=ckpt) == 0
    assert way.table("predict", "run1").equals(way.table("predict", "packed1"))
    groups = [(way.folder("evaluate", n) / "figures/survival-survival.csv").read_text() for n in ("run", "packed")]
    assert groups[0] == groups[1]
    assert "high risk" in groups[0]


def test_a_page_says_how_the_model_does_also_of_a_bundle(way: Way, bundle: Path, tmp_path: Path) -> None:
    words = (*other(way), "explain.patients=1")
    assert way.predict("page", *words, ckpt=way.folder()) == 0
    assert way.predict("packed-page", *words, ckpt=bundle) == 0
    told = [
        re.findall(r"<li>(On \d+ held-out patients .*)</li>", (folder / "patients/P0001/page.html").read_text())
        for folder in (way.folder("predict", "page"), way.folder("predict", "packed-page"))
    ]
    assert told[0] == told[1]
    assert [re.sub(r"[.\d]+", "N", sentence)[:60] for sentence in told[0]] == [
        "On N held-out patients of the training cohort: ordinal AUC N",
        "On N held-out patients of the training cohort (N positive): ",
        "On N held-out patients of the training cohort (N events): C-",
    ]
    page = (way.folder("predict", "page") / "patients/P0001/page.html").read_text()
    assert "Probabilities are calibrated: a temperature, fitted on " in page
    assert "Probabilities are calibrated: level and slope of the curves at the horizon, fitted on " in page
    content = json.loads((bundle / "model.json").read_text())
    before = dict(content)
    del before["held_out"]  # a bundle of before
    (bundle / "model.json").write_text(json.dumps(before))
    sealed(bundle)
    assert bundled.held_out(bundle) == {}
    (bundle / "model.json").write_text(json.dumps(content | {"held_out": {"stage": {"n": "many"}}}))
    sealed(bundle)
    with pytest.raises(IntegrityFault, match="does not say how the model did"):
        bundled.held_out(bundle)


def test_a_bundle_holds_no_patient(way: Way) -> None:
    packed = way.folder("bundle", "b") / "bundle"
    ids = set(pd.read_csv(way.data / "patients.csv", dtype=str)["patient_id"])
    slides = set(pd.read_csv(way.data / "slides.csv", dtype=str)["slide_id"])
    for file in packed.rglob("*"):
        if file.is_file():
            raw = file.read_bytes()
            assert not [i for i in ids | slides if i.encode() in raw], file.name
            assert str(way.root).encode() not in raw, file.name

    def lists(content: object) -> int:
        inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
        return max([len(content) if isinstance(content, list) else 0, *map(lists, inner)])

    # nothing is as long as the patients are many: no labels, no rows (the genes of rna are longer)
    model = json.loads((packed / "model.json").read_text())
    assert lists(model) < 20
    for fold in packed.glob("fold*"):
        state = json.loads((fold / "fitted.json").read_text())["fitted"]
        assert lists(state["tasks"]) < 20
        assert lists(state["reference"]["clinical"]) < 20
        # of their follow-up, counts by whole days
        assert set(state["follow_up"]) == {"survival"}
        assert set(state["follow_up"]["survival"]) == {"days", "events", "censored"}
        assert (fold / "fitted.json").read_bytes() == (way.folder() / fold.name / "fitted.json").read_bytes()
    assert {p.name for p in packed.iterdir()} == {
        "model.json", "cohort.json", "card.md", "manifest.sha256", "fold0", "fold1",
    }  # fmt: skip
    assert "Research use only" in (packed / "card.md").read_text()


def test_a_bundle_without_follow_up_says_what_is_missing(
    way: Way, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    assert way.run("bundle", "bare", f"ckpt={way.folder()}", f"out={out}", "follow_up=false") == 0
    for fold in out.glob("fold*"):
        state = json.loads((fold / "fitted.json").read_text())["fitted"]
        assert state == json.loads((way.folder() / fold.name / "fitted.json").read_text())["fitted"] | {"follow_up": {}}
    assert judge(way, "bare", out, *other(way)) == 0
    assert "the bundle holds no follow-up of its training patients" in capsys.readouterr().out
    rows = json.loads((way.folder("evaluate", "bare") / "metrics.json").read_text())
    of = {r["metric"]: r for r in rows if (r["task"], r["fold"], r["model"]) == ("survival", "all", "learner")}
    for metric in ("uno_c", "ibs", "bound_coverage"):
        assert of[metric]["value"] is None
        assert "give the run folder as ckpt=" in of[metric]["reason"]
        assert of[f"own_censoring:{metric}"]["value"] is not None


@pytest.mark.slow
def test_a_run_of_before_has_its_weights_from_the_training_cohort(way: Way, tmp_path: Path) -> None:
    """The same numbers, counted anew."""
    old = Path(shutil.copytree(way.folder(), tmp_path / "old"))
    for fold in old.glob("fold*"):
        state = json.loads((fold / "fitted.json").read_text())
        del state["fitted"]["follow_up"]
        (fold / "fitted.json").write_text(json.dumps(state))
        seal(fold)
    found = {}
    for name, ckpt in (("kept", way.folder()), ("counted", old)):
        assert judge(way, name, ckpt, *other(way), "floors=[]") == 0
        rows = json.loads((way.folder("evaluate", name) / "metrics.json").read_text())
        found[name] = [r for r in rows if r["task"] == "survival"]
    assert found["kept"] == found["counted"]


def test_its_own_patients_are_refused(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    packed = way.folder("bundle", "b") / "bundle"
    assert judge(way, "own", packed) == 2
    assert "holds no predictions of the patients that it was trained on" in capsys.readouterr().err
    assert way.predict("own", ckpt=packed) == 2
    assert "a bundle holds no patients" in capsys.readouterr().err
    moved = shutil.copytree(way.data, way.root / "moved", dirs_exist_ok=True)
    assert way.predict("own", f"cohort.root={moved}", ckpt=packed) == 2
    assert "does not know which fold held out whom" in capsys.readouterr().err
    assert way.run("bundle", "twice", f"ckpt={packed}") == 2


def test_a_bundle_is_whole_and_never_written_over(way: Way, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.run("bundle", "again", f"ckpt={way.folder()}", f"out={tmp_path / 'b'}") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]  # and nothing half-written
    first = bundled.sha256(tmp_path / "b")
    assert first == bundled.sha256(way.folder("bundle", "b") / "bundle")  # of the same run the same bytes
    assert first in capsys.readouterr().out
    assert way.run("bundle", "over", f"ckpt={way.folder()}", f"out={tmp_path / 'b'}") == 2
    assert "exists" in capsys.readouterr().err


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def changed(folder: Path, edit: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((folder / "model.json").read_text())
    edit(content)
    (folder / "model.json").write_text(json.dumps(content))
    sealed(folder)


def flip(folder: Path) -> None:
    raw = bytearray((folder / "fold0/model0.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "fold0/model0.safetensors").write_bytes(raw)


def add(name: str, reseal: bool) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Malicious(folder.parent / "executed")))
        if reseal:
            sealed(folder)

    return edit


def link(folder: Path) -> None:
    (folder / "fold0/fitted.json").rename(folder.parent / "fitted.json")
    (folder / "fold0/fitted.json").symlink_to(folder.parent / "fitted.json")


def outside(folder: Path) -> None:
    (folder.parent / "fitted.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    (folder / "manifest.sha256").write_text((folder / "manifest.sha256").read_text() + f"{digest}  ../fitted.json\n")


def target(folder: Path) -> None:
    name = {"_target_": "os.system", "command": f"touch {folder.parent / 'executed'}"}
    changed(folder, lambda content: content["config"].update(fusion=name))  # type: ignore[attr-defined]


def target_of_an_encoder(folder: Path) -> None:
    file = folder / "fold0/fitted.json"
    content = json.loads(file.read_text())
    encoder = {"_target_": "torch.hub.load", "repo_or_dir": str(folder.parent)}
    content["modalities"]["rna"]["encoder"] = encoder
    file.write_text(json.dumps(content))
    sealed(folder)


TAMPERED = {
    "a flipped byte": (flip, "sha256 differs"),
    "a missing file": (lambda f: (f / "fold1/model0.safetensors").unlink(), "lacks 'fold1/model0.safetensors'"),
    "a missing description": (lambda f: (f / "model.json").unlink(), "lacks 'model.json'"),
    "a missing manifest": (lambda f: (f / "manifest.sha256").unlink(), "missing or damaged"),
    "an added file": (add("notes.txt", False), "does not list"),
    "an added pickle": (add("fold0/model1.pkl", True), "no file of a bundle"),
    "an added checkpoint": (add("fold0/model0.ckpt", True), "no file of a bundle"),
    "a pickle for weights": (add("fold0/model0.safetensors", True), "is no safetensors file"),
    "a pickle for a description": (add("model.json", True), "is not the description"),
    "a link": (link, "is a link"),
    "a path out of it": (outside, "no file of a bundle"),
    "another schema": (lambda f: changed(f, lambda c: c.update(schema=99)), "has schema 99"),
    "a strange target": (target, "configuration may only name"),
    "a strange encoder": (target_of_an_encoder, "may not name"),
    "an interpolation": (lambda f: changed(f, lambda c: c.update(x="${oc.env:HOME}")), "an interpolation"),
    "a folder elsewhere": (lambda f: changed(f, lambda c: c.update(derived={"features": "../.."})), "names folders"),
    "other weights": (
        lambda f: (shutil.copy(f / "model.json", f / "fold0/model0.safetensors"), sealed(f)),
        "is no safetensors file",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_bundle_that_was_changed_is_refused(
    way: Way, bundle: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 5, and nothing of it is executed."""
    edit, sentence = TAMPERED[what]
    edit(bundle)
    assert way.predict(f"bad-{bundle.parent.name}", *other(way), ckpt=bundle) == 5
    assert sentence in capsys.readouterr().err
    assert not (bundle.parent / "executed").exists()


def test_weights_of_another_model_are_refused(way: Way, bundle: Path) -> None:
    """A manifest that somebody wrote anew does not make them fit."""
    from safetensors.torch import load_file, save_file

    state = load_file(bundle / "fold0/model0.safetensors")
    state.pop(next(iter(state)))
    save_file(state, bundle / "fold0/model0.safetensors")
    sealed(bundle)
    assert judge(way, "lacking", bundle, *other(way)) == 5
    with pytest.raises(IntegrityFault, match="describes no 'fold7'"):
        bundled.settings_of(bundle / "fold7")


# -- elsewhere --------------------------------------------------------------------------------------------------------


def test_evaluations_are_counted_with_the_model(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(way.folder(), way.root / "counted", ignore=lambda *_: ["evaluations.jsonl"])
    for name, words, told in (
        ("c1", other(way), "once on this cohort"),
        ("c2", (f"cohort.root={way.data}",), "once on this cohort, 2 times in all"),
    ):
        assert judge(way, name, run, *words, "floors=[]") == 0
        assert f"counted: evaluated {told}" in capsys.readouterr().out
        assert f"evaluated {told}" in (way.folder("evaluate", name) / "report.html").read_text()
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == ["c1", "c2"]
    assert not (way.folder("evaluate", "c2") / "tables/drift.csv").exists()  # patients of the training cohort
    packed = way.folder("bundle", "b") / "bundle"  # a bundle stays as it is: its count lies beside the evaluations
    file = way.root / "runs/evaluate" / f"{bundled.sha256(packed)[:16]}.evaluations.jsonl"
    assert evaluations.place(packed, {"paths": {"runs": way.root / "runs"}}) == file


@pytest.mark.slow
def test_inputs_that_moved_are_named(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(way, "moved", way.folder(), *other(way, "shifted"), "floors=[]") == 0
    said = capsys.readouterr().out
    assert "inputs: rna is unlike that of the training patients" in said
    assert "clinical is unlike" not in said
    page = (way.folder("evaluate", "moved") / "report.html").read_text()
    assert "Are these patients’ inputs like those in training?" in page
    table = pd.read_csv(way.folder("evaluate", "moved") / "tables/drift.csv", keep_default_na=False)
    assert set(table["modality"]) == {"rna", "clinical"}
    capsys.readouterr()
    assert way.predict("still", *other(way)) == 0
    assert "inputs: No modality is told apart from that of the training patients." in capsys.readouterr().out


# -- before the outcomes ----------------------------------------------------------------------------------------------


def without_outcomes(folder: Path, keep: int) -> None:
    """Blanks stage and survival of all but the first `keep` patients."""
    file = folder / "patients.csv"
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows[keep:]:
        row.update(stage="", os_days="", os_status="")
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def prospect(way: Way) -> SimpleNamespace:
    """Patients of whom two had outcomes when their predictions were locked."""
    root = Path(shutil.copytree(way.root / "alike", way.root / "prospect"))
    whole = (root / "patients.csv").read_bytes()
    without_outcomes(root, keep=2)
    assert way.predict("locked", *other(way, "prospect"), "lock=true") == 0
    return SimpleNamespace(root=root, whole=whole, run=way.folder("predict", "locked"))


def test_locked_predictions_meet_their_outcomes(
    way: Way, prospect: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = json.loads((prospect.run / "lock.json").read_text())
    assert (
        lock["files"]["predictions.csv"] == hashlib.sha256((prospect.run / "predictions.csv").read_bytes()).hexdigest()
    )
    assert set(lock["weights"]) == {"fold0/model0", "fold1/model0"}
    assert (prospect.run / "predictions.csv").stat().st_mode & 0o222 == 0
    words = (f"predictions={prospect.run}", "floors=[]")
    assert judge(way, "early", way.folder(), *words) == 3
    assert "no outcome has come since" in capsys.readouterr().err
    (prospect.root / "patients.csv").write_bytes(prospect.whole)
    without_outcomes(prospect.root, keep=50)
    assert judge(way, "later", way.folder(), *words) == 0
    said = capsys.readouterr().out
    assert "patients with an outcome still to come" in said
    assert "note: response: nobody's outcome is known, so it is not judged" in said  # all were known when locked
    assert "response: nobody&#39;s outcome" in (way.folder("evaluate", "later") / "report.html").read_text()
    found = pd.read_csv(way.folder("evaluate", "later") / "outcomes.csv", dtype=str).set_index(["task", "patient_id"])
    first = pd.read_csv(prospect.root / "patients.csv", dtype=str, keep_default_na=False).set_index("patient_id")
    stage = found.loc["stage", "outcome"]
    for k, (patient, row) in enumerate(first.iterrows()):
        expected = "none yet" if not row["stage"] else "known when locked" if k < 2 else "joined"
        assert stage[patient] == expected
    judged = read_table(way.folder("evaluate", "later") / "predictions.csv")
    before = read_table(prospect.run / "predictions.csv")
    keys = ["patient_id", "task", "output"]
    assert judged.sort_values(keys)["value"].tolist() == before.sort_values(keys)["value"].tolist()
    rows = json.loads((way.folder("evaluate", "later") / "metrics.json").read_text())
    counts = {r["n"] for r in rows if (r["task"], r["metric"], r["fold"]) == ("stage", "ordinal_auc", "all")}
    assert counts == {int((stage == "joined").sum())}
    assert (
        "before the outcomes that they are judged by" in (way.folder("evaluate", "later") / "report.html").read_text()
    )
    # the bundle is the same model
    assert judge(way, "packed-later", way.folder("bundle", "b") / "bundle", *words) == 0
    # whose censoring weights lie with both
    again = json.loads((way.folder("evaluate", "packed-later") / "metrics.json").read_text())
    for found in (rows, again):
        of = {r["metric"]: r["value"] for r in found if (r["task"], r["fold"]) == ("survival", "all")}
        assert of["ibs"] is not None
        assert of["own_censoring:ibs"] is not None


def test_a_lock_that_was_broken_is_refused(
    way: Way, prospect: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(prospect.run, tmp_path / "broken"))
    (broken / "predictions.csv").chmod(0o644)
    text = (broken / "predictions.csv").read_text()
    (broken / "predictions.csv").write_text(text.replace(",0.", ",1.", 1))
    assert judge(way, "broken", way.folder(), f"predictions={broken}") == 5
    assert "is not the file that was locked" in capsys.readouterr().err
    assert judge(way, "one", way.folder() / "fold0/model0.ckpt", f"predictions={prospect.run}") == 5
    assert "is not the model that made the predictions" in capsys.readouterr().err
    deposited = hashlib.sha256((prospect.run / "lock.json").read_bytes()).hexdigest()
    assert judge(way, "sha", way.folder(), f"predictions={prospect.run}", f"lock_sha256={deposited[::-1]}") == 5
    assert "lock_sha256" in capsys.readouterr().err
    assert way.predict("open", *other(way)) == 0
    assert judge(way, "open", way.folder(), f"predictions={way.folder('predict', 'open')}") == 2
    assert "holds no lock.json" in capsys.readouterr().err


def test_locked_predictions_are_never_written_again(way: Way, prospect: SimpleNamespace) -> None:
    from nsclc_mtl.commands import predict
    from nsclc_mtl.config import execute

    before = (prospect.run / "predictions.csv").read_bytes()
    words = ["name=locked", *way.paths, f"ckpt={way.folder()}", *other(way)]
    assert execute("predict", words, lambda: predict.body, resume=True) == 2
    assert (prospect.run / "predictions.csv").read_bytes() == before


def test_lock_is_a_flag_of_predict() -> None:
    said = CliRunner().invoke(app, ["predict", "--lock", "--show", "ckpt=x"])
    assert said.exit_code == 0
    assert "lock: true" in said.output
    assert CliRunner().invoke(app, ["evaluate", "--lock", "--show", "ckpt=x"]).exit_code == 2
