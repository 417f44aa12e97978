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

import numpy as np
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
    with pytest.raises(IntegrityFault, match="held_out: stage lacks 'metric'"):
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

    # nothing is as long as the patients are many: no labels, no rows (the genes of rna are longer); but for digests
    model = json.loads((packed / "model.json").read_text())
    marks = model.pop("marks")
    assert lists(model) < 20
    for word in ("content", "named"):  # in an order of their own
        assert marks[word] == sorted(marks[word])
        assert all(re.fullmatch("[0-9a-f]{20}", mark) for mark in marks[word])
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
    page = (way.folder("evaluate", "bare") / "report.html").read_text()
    account = json.loads((way.folder() / "run.json").read_text())
    assert f"<dt>Version</dt><dd>{account['versions']['nsclc-mtl']}</dd>" in page
    commit = account["git_commit"][:10] if account["git_commit"] else "not recorded"
    assert f"<dt>Commit</dt><dd>{commit}</dd>" in page
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


def test_the_run_that_made_a_bundle_names_it(way: Way, tmp_path: Path) -> None:
    made = way.folder("bundle", "b")
    assert bundled.at(made) == made / "bundle" == bundled.at(made / "bundle" / "fold0")
    trained = shutil.copytree(way.folder(), tmp_path / "run")
    shutil.copytree(made / "bundle", trained / "bundle")
    assert bundled.at(trained) is None  # a run of training stays one, whatever lies in it


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


# -- JSON of another shape, under a manifest that somebody wrote anew -------------------------------------------------

VALUES = ([], {}, "hello", 5, 0.5, None, True, [5], {"a": 5})
GONE = object()
# what bundles of before lack, or may say nothing of; `{}` where there may be none of it
OPTIONAL = {
    "model.json": {"thresholds", "patients_sha256", "marks", "derived", "git_commit", "held_out"},
    "fold0/fitted.json": {
        "combat", "series", "trust", "outside", "robust", "sites", "reference", "follow_up",
    },
}  # fmt: skip


def damaged(file: Path) -> list[tuple[tuple[str, ...], object, str]]:
    """(place, value, text) of the JSON with another value at each word of it, and of `fitted`; or without the word."""
    text = file.read_text()
    whole = json.loads(text)
    places = [(word,) for word in whole] + [("fitted", word) for word in whole.get("fitted", ())]
    made: list[tuple[tuple[str, ...], object, str]] = [((), value, json.dumps(value)) for value in VALUES]
    made += [((), "cut", text[: len(text) // 2]), ((), "{", "{"), ((), "nothing", "")]
    for place in places:
        for value in (*VALUES, GONE):
            content = json.loads(text)
            at = content if len(place) == 1 else content["fitted"]
            old = at.pop(place[-1])
            if value is not GONE:
                at[place[-1]] = value
            if value != old and (type(value) is not type(old) or isinstance(value, (list, dict))):
                made.append((place, value, json.dumps(content)))
    return made


@pytest.mark.parametrize("name", ["model.json", "cohort.json", "fold0/fitted.json"])
def test_json_of_another_shape_is_refused(bundle: Path, name: str) -> None:
    """By `opened`, through which every verb goes; nothing but what may be lacking is let through."""
    file, accepted = bundle / name, set()
    for place, value, text in damaged(file):
        file.write_text(text)
        sealed(bundle)
        try:
            bundled.opened(bundle)
        except IntegrityFault:
            pass
        else:
            accepted.add((place[-1] if place else "", "gone" if value is GONE else repr(value)))
    optional = {(word, value) for word in OPTIONAL.get(name, ()) for value in ("gone", "None", "[]", "{}")}
    unlikely = {("cutoffs", "{}"), ("notes", "[]")}  # a run without survival has none of the former
    assert accepted <= optional | unlikely


REWRITTEN: dict[str, tuple[str, Callable[[Any], Any] | str]] = {
    "half of what was fitted": ("fold0/fitted.json", "{"),
    "no folds": ("model.json", lambda c: {**c, "folds": {}}),
    "a word for cut-offs": ("model.json", lambda c: {**c, "cutoffs": "hello"}),
    "a list for a cohort": ("cohort.json", lambda c: []),
    "a schema that is true": ("model.json", lambda c: {**c, "schema": True}),
    "other tasks": ("cohort.json", lambda c: {**c, "tasks": {}}),
    "no fusion": ("model.json", lambda c: {**c, "config": {**c["config"], "fusion": {}}}),
    "no parts": ("model.json", lambda c: {**c, "config": {**c["config"], "parts": {"modalities": {}, "tasks": {}}}}),
    "no balance": ("model.json", lambda c: {**c, "config": {**c["config"], "balance": {}}}),
    "a table of nothing": (
        "fold1/fitted.json", lambda c: {**c, "fitted": {**c["fitted"], "tables": {"clinical": {}, "rna": {}}}}
    ),
    "a fold that is not there": ("model.json", lambda c: {**c, "folds": {**c["folds"], "7": c["folds"]["0"]}}),
}  # fmt: skip


@pytest.mark.parametrize("what", REWRITTEN)
def test_a_bundle_with_rewritten_json_ends_with_exit_5(
    way: Way, bundle: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, edit = REWRITTEN[what]
    text = (bundle / name).read_text()
    (bundle / name).write_text(edit if isinstance(edit, str) else json.dumps(edit(json.loads(text))))
    sealed(bundle)
    word = bundle.parent.name
    assert way.predict(f"shape-{word}", *other(way), ckpt=bundle) == 5
    assert judge(way, f"shape-{word}", bundle, *other(way)) == 5
    assert "unexpected" not in capsys.readouterr().err


def test_a_fold_that_knows_nobody_as_unlike_leaves_it_to_the_others(way: Way, bundle: Path) -> None:
    state = json.loads((bundle / "fold0/fitted.json").read_text())
    state["fitted"]["outside"] = {}
    (bundle / "fold0/fitted.json").write_text(json.dumps(state))
    sealed(bundle)
    assert way.predict("one-knows", *other(way), ckpt=bundle) == 0
    told = pd.read_csv(way.folder("predict", "one-knows") / "trust.csv", dtype=str, keep_default_na=False)
    assert (told["what"] == "outside:rarity").sum() == 60


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


@pytest.mark.slow
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
    first = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False)
    first.loc[:1, "os_status"] = "deceased"  # who was followed and is alive would have to be counted from then on
    first.to_csv(root / "patients.csv", index=False)
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
    told = capsys.readouterr()
    assert "no outcome has come since" in told.err
    assert "Predictions locked on" in told.out
    assert "judged" not in told.out
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


@pytest.fixture(scope="module")
def followed(way: Way) -> SimpleNamespace:
    """Patients most of whom were under observation already when their predictions were locked, judged later."""
    root = Path(shutil.copytree(way.root / "alike", way.root / "followed"))
    whole = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False)
    days = pd.to_numeric(whole["os_days"].replace("", None))
    seen = pd.Series([30 * (k % 20) for k in range(len(whole))], dtype=float)
    then = whole.assign(stage="", response="")
    alive = days > seen
    then.loc[alive, "os_status"], then.loc[alive, "os_days"] = "alive", seen[alive].map("{:.0f}".format)
    never = alive & (seen == 0)
    then.loc[never, ["os_status", "os_days"]] = ""
    then.to_csv(root / "patients.csv", index=False)
    assert way.predict("followed", *other(way, "followed"), "lock=true") == 0
    lost = list(whole["patient_id"][alive & ~never][:3])  # never seen again
    now = whole.where(~whole["patient_id"].isin(lost), then)
    now.to_csv(root / "patients.csv", index=False)
    run = way.folder("predict", "followed")
    assert judge(way, "followed", way.folder(), f"predictions={run}", "floors=[clinical]") == 0
    entry = pd.concat([seen.where(~never, 0), days], axis=1).min(axis=1).where(days.notna(), 0)
    dead = ~alive & (whole["os_status"] == "deceased")
    table = pd.DataFrame({"entry": entry, "alive": alive, "dead": dead, "days": days})
    return SimpleNamespace(run=run, lost=lost, table=table.set_index(whole["patient_id"]))


def test_survival_counts_from_the_follow_up_that_was_known_when_locked(way: Way, followed: SimpleNamespace) -> None:
    out = way.folder("evaluate", "followed")
    told = pd.read_csv(out / "outcomes.csv", dtype={"patient_id": str}).query("task == 'survival'")
    told = told.set_index("patient_id")
    here = followed.table.loc[told.index]
    expected = pd.Series("no later follow-up", told.index)  # had left before the lock
    expected[here["dead"]] = "known when locked"
    expected[here["alive"]] = "joined"
    expected[here["days"].isna()] = "none yet"
    expected[followed.lost] = "no later follow-up"
    assert told["outcome"].to_dict() == expected.to_dict()
    still = told.index[told["outcome"] == "no later follow-up"]
    assert len(still) > 3
    np.testing.assert_allclose(told["entry_days"].fillna(0), here["entry"].where(~here["dead"], 0).fillna(0))
    table = read_table(out / "predictions.csv").query("task == 'survival'")
    risk = table.query("output == 'risk'").set_index("patient_id")
    joined = told.index[told["outcome"] == "joined"]
    np.testing.assert_allclose(risk.loc[joined, "time_days"], (here["days"] - here["entry"])[joined])
    assert (risk.loc[still, ["time_days", "event"]] == 0).all(axis=None)
    curves = table[table["output"].str.startswith("surv:")]
    assert set(curves["patient_id"]) == {*joined, *still}
    before = read_table(followed.run / "predictions.csv").query("task == 'survival'")
    wide, now = (t.pivot(index="patient_id", columns="output", values="value") for t in (before, curves))
    some = joined[here.loc[joined, "entry"] == 0][0]
    assert now.loc[some, "surv:365"] == pytest.approx(wide.loc[some, "surv:365"], rel=1e-5)
    late = joined[here.loc[joined, "entry"] == 180][0]
    assert now.loc[late, "surv:365"] > wide.loc[late, "surv:730"]
    floors = read_table(out / "floors.csv").query("task == 'survival' and part == 'test'")
    assert set(floors["output"]) == {"risk", *curves["output"]}
    rows = rows_of(way, "followed")
    of = {r["metric"]: r for r in rows if (r["task"], r["fold"], r["model"]) == ("survival", "all", "learner")}
    assert of["c_index"]["n"] == len(joined) + len(still)
    assert "G of the training from day 0" in of["uno_c"]["reason"]
    assert of["own_censoring:uno_c"]["value"] is not None
    assert not [m for m in of if m.endswith("bound_coverage")]
    page = (out / "report.html").read_text()
    sentence = "time counts from the end of that follow-up"
    assert sentence in page
    assert sentence in (out / "log.txt").read_text()


def test_a_report_of_locked_predictions_tells_of_these_patients(
    way: Way, followed: SimpleNamespace, tmp_path: Path
) -> None:
    out = way.folder("evaluate", "followed")
    assert set(json.loads((followed.run / "lock.json").read_text())["files"]) == {
        "predictions.csv", "patients.csv", "cohort.json", "trust.csv", "drift.csv", "outside.csv",
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert "no prospective study" not in page + (out / "card.md").read_text()
    assert "Are these patients’ inputs like those in training?" in page
    assert "When the least certain are left out" in page
    flags = pd.read_csv(out / "tables/trust-flags.csv")
    assert flags.set_index("site").loc["all", "patients"] == 60  # not the 80 of the training
    for name in ("trust.csv", "drift.csv", "outside.csv"):
        assert (out / name).read_bytes() == (followed.run / name).read_bytes()
    changed = Path(shutil.copytree(followed.run, tmp_path / "changed"))
    (changed / "trust.csv").chmod(0o644)
    (changed / "trust.csv").write_text((changed / "trust.csv").read_text().replace(",1\n", ",0\n", 1))
    assert judge(way, "trust", way.folder(), f"predictions={changed}", "floors=[]") == 5


def test_a_lock_of_before_tells_nothing_of_how_far_to_rely_on_it(
    way: Way, followed: SimpleNamespace, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(followed.run, tmp_path / "old"))
    (old / "lock.json").chmod(0o644)
    lock = json.loads((old / "lock.json").read_text())
    for name in ("trust.csv", "drift.csv", "outside.csv"):
        del lock["files"][name]
    (old / "lock.json").write_text(json.dumps(lock))
    assert judge(way, "old", way.folder(), f"predictions={old}", "floors=[]") == 0
    page = (way.folder("evaluate", "old") / "report.html").read_text()
    assert "The lock holds no trust.csv" in page
    assert "How often a prediction comes with a reason for caution" not in page
    assert "Are these patients’ inputs like those in training?" not in page


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
