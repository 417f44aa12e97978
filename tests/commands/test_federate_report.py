"""What is told of a federation: of a made run folder with known numbers, and of a small real one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.commands import federate_membership, federate_report
from nsclc_mtl.commands.outputs import plain_name
from nsclc_mtl.federated.membership import Losses, attacks
from nsclc_mtl.phantom import cohort as phantom
from nsclc_mtl.records import Manifest, TaskSpec
from nsclc_mtl.report.federated import page
from nsclc_mtl.report.federated.ways import ALL, DIFFERENCE
from nsclc_mtl.report.section import save

SITES = ("<b>A", "A/B", "..")
TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "<i>os": TaskSpec("<i>os", "survival", endpoint="overall survival"),
}
COLUMNS = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
PLAN: dict[str, Any] = {
    "sites": None, "against": ["centralised", "local"], "rounds": None, "local_epochs": 1, "aggregation": "mean",
    "trim": 1, "proximal": 0.0, "normalisation": "shared", "scaling": "pooled", "least": 5, "min_sites": 2,
    "norm_limit": 10.0, "retries": 2, "timeout_s": 600, "secure": False,
    "privacy": {"enabled": False, "clip": 1.0, "noise": 1.0, "delta": 1e-5},
}  # fmt: skip
SETTINGS: dict[str, Any] = {"bootstrap": 100, "seed": 0, "federated": PLAN}
N, FOLDS = 72, 2


def cohort() -> tuple[Manifest, pd.DataFrame, dict[str, list[str]]]:
    rng = np.random.default_rng(1)
    ids = [f"P{i:03d}" for i in range(N)]
    sites = {site: ids[k :: len(SITES)] for k, site in enumerate(SITES)}
    labels = {
        "response": pd.DataFrame({"value": (rng.random(N) < 0.5) * 1.0}, index=ids),
        "<i>os": pd.DataFrame(
            {"event": (rng.random(N) < 0.6) * 1.0, "time_days": rng.exponential(600, N) + 1}, index=ids
        ),
    }
    of = {p: s for s, own in sites.items() for p in own}
    patients = pd.DataFrame({"site": [of[p] for p in ids]}, index=pd.Index(ids, name="patient_id"))
    manifest = Manifest("toy", patients, TASKS, {}, labels, notes=["a note with <u>marks</u>"])
    parts = [(p, k, "test" if i // 3 % FOLDS == k else "train") for k in range(FOLDS) for i, p in enumerate(ids)]
    return manifest, pd.DataFrame(parts, columns=["patient_id", "fold", "part"]), sites


def predictions(manifest: Manifest, splits: pd.DataFrame, ids: list[str], noise: float, seed: int) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for p, k, part in splits[splits["patient_id"].isin(ids)].itertuples(index=False):
        response, os = manifest.labels["response"].loc[p], manifest.labels["<i>os"].loc[p]
        yes = float(1 / (1 + np.exp(-(2 * response["value"] - 1 + noise * rng.normal()))))
        risk = float(-np.log(os["time_days"]) + noise * rng.normal())
        target = TASKS["response"].classes[int(response["value"])]
        rows += [(p, "response", k, part, f"p:{c}", v, target, "", "") for c, v in (("no", 1 - yes), ("yes", yes))]
        rows.append((p, "<i>os", k, part, "risk", risk, "", os["event"], os["time_days"]))
    return pd.DataFrame(rows, columns=COLUMNS)


def record(fold: int, splits: pd.DataFrame, sites: dict[str, list[str]]) -> dict[str, Any]:
    """What the server keeps of a fold: two rounds, a silent and a rejected site in the second one."""
    train = splits[(splits["fold"] == fold) & (splits["part"] == "train")]
    n = {site: int(train["patient_id"].isin(ids).sum()) for site, ids in sites.items()}
    first = {site: {"n": n[site], "loss": 2.5 + 0.125 * k + fold} for k, site in enumerate(sites)}
    told = "changes the model by 900, more than 10 times the usual 1"
    said = [f"fold {fold}: 3 sites with {sum(n.values())} training patients"]
    second: dict[str, Any] = {"number": 1, "sites": {}, "rejected": {}, "silent": [], "moved": 0.0625, "done": True}
    second["sites"] = {site: {"n": n[site], "loss": 2.25 + fold} for site in sites if site == "A/B" or fold == 0}
    if fold == 1:
        second |= {"rejected": {"<b>A": told}, "silent": [".."]}
        said.append(f"round 1: the answer of <b>A is rejected: {told}")
    begun = {"number": 0, "sites": first, "rejected": {}, "silent": [], "moved": 0.5, "done": True}
    return {"patients": n, "metrics": {}, "said": said, "rounds": [begun, second]}


def losses(fold: int, manifest: Manifest, splits: pd.DataFrame, site: str, ids: list[str]) -> Losses:
    """Training patients of the site lose less than others on the one task, alike much on the other."""
    rows = splits[(splits["fold"] == fold) & splits["patient_id"].isin(ids)]
    member = (rows["part"] == "train").to_numpy()
    rng = np.random.default_rng([fold, *site.encode()])
    of = {"response": rng.normal(size=len(rows)) - 1.5 * member, "<i>os": rng.normal(size=len(rows))}
    of["<i>os"][0] = math.nan
    return Losses(list(rows["patient_id"]), member, of, [site] * len(rows))


def messages(path: Path) -> None:
    lines = [
        {"direction": "out", "site": site, "bytes": 1000 + 10 * k, "kind": kind} for k, site in enumerate(SITES)
        for kind in ("fit", "train", "train")
    ]  # fmt: skip
    lines += [
        {"direction": "in", "site": site, "bytes": 70_000 * (k + 1), "kind": kind}
        for k, site in enumerate(SITES)
        for kind in ("fit", "train")
    ]
    lines.append({"event": "begun"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def written(run: Path) -> tuple[Manifest, pd.DataFrame, dict[str, list[str]]]:
    """A run folder as `mtl federate simulate` leaves it; the local model of `A/B` was refused in fold 1."""
    manifest, splits, sites = cohort()

    def put(frame: pd.DataFrame, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(folder / "predictions.csv", index=False, float_format="%.7g")

    put(predictions(manifest, splits, list(manifest.patients.index), 1.0, 2), run)
    put(predictions(manifest, splits, list(manifest.patients.index), 0.5, 3), run / "centralised")
    for k, (site, ids) in enumerate(sites.items()):
        frame, folder = predictions(manifest, splits, ids, 3.0, 10 + k), run / "local" / plain_name(site)
        if site == "A/B":
            put(frame[frame["fold"] == 0], folder)
            (folder / "refused1.json").write_text(json.dumps({"sentence": "one class only among <s>4</s> patients"}))
        else:
            put(frame, folder)
    (run / "local" / plain_name("..") / "fold0").mkdir()
    (run / "local" / plain_name("..") / "fold0" / "predictions.csv").write_text("")
    (run / "local" / plain_name("..") / "refused0.json").write_text('{"sentence": "of an earlier start"}')
    (run / "federation").mkdir()
    numbers = federate_membership._numbers(splits, 0)
    for fold in range(FOLDS):
        (run / "federation" / f"fold{fold}.json").write_text(json.dumps(record(fold, splits, sites)))
        messages(run / "federation" / f"messages{fold}.jsonl")
        own = [losses(fold, manifest, splits, site, ids) for site, ids in sites.items()]
        text = {"federated": [federate_membership._without_ids(one, numbers) for one in own]}
        text["centralised"] = text["federated"]
        (run / "federation" / f"membership{fold}.json").write_text(json.dumps(text))
    return manifest, splits, sites


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("federate") / "one"
    run.mkdir()
    return federate_report.account(SETTINGS, *written(run), run)


@pytest.fixture(scope="module")
def html(told: dict[str, Any]) -> str:
    return page.render(told).html


class Seen(HTMLParser):
    """Texts of a page outside pictures and styles, and its tags; raises where a tag does not close."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"svg", "style"} & set(self.open):
            self.texts.append((tuple(self.open), data))


def numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value, also those within its words."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(key)
            yield from numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, str):
        yield from map(float, re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def assert_every_number_is_told(text: str, told: dict[str, Any]) -> None:
    """Each number in a table, card or list of the page is one of the account, as it is rounded there."""
    known = {f"{abs(x):{form}}" for x in numbers(told) for form in (".3f", ".3g", ".0f", ".2f")}
    known |= {re.sub(r" .*", "", page.size(x)) for x in numbers(told) if x >= 0}
    known |= {f"{100 * x:.0f}" for x in numbers(told) if 0 <= x <= 1}
    known |= {"0", "1.000", "95", f"{len(told['sites'])}", f"{len(told['folds'])}", f"{len(told['folds'][0]['moved'])}"}
    known |= {f"{sum(fold['patients'].values())}" for fold in told["folds"]}
    found = 0
    for where, words in Seen(text).texts:
        if "td" in where or "th" in where or "dd" in where or "div" in where or "li" in where:
            for number in re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", "" if words == told["run"]["commit"] else words):
                found += 1
                assert number in known or f"{float(number):.3g}" in known, (where, words)
    assert found > 100


def test_every_number_of_the_page_is_in_the_account(told: dict[str, Any], html: str) -> None:
    assert_every_number_is_told(html, json.loads(json.dumps(told, allow_nan=False)))


def test_values_stand_where_they_belong(told: dict[str, Any], html: str) -> None:
    """The row of a way, cell by cell, is what the rows of the account say of it."""
    row = {(r["site"], r["measure"], r["metric"], r["way"]): r for r in told["rows"] if r["task"] == "response"}
    section = html[html.index('id="task-1"') : html.index('id="task-2"')]
    for way, metric, head in (
        ("federated", "auc", "federated"),
        ("local", "auc", "local"),
        ("centralised", f"{DIFFERENCE}auc", "federated minus centralised"),
    ):
        line = re.search(rf'<th scope="row">{head}</th>(.*?)</tr>', section, re.DOTALL)
        assert line
        cells = re.findall(r"<td[^>]*>(.*?)</td>", line.group(1), re.DOTALL)
        columns = [(ALL, "within"), (ALL, "whole")] + [(site, "within") for site in SITES]
        assert len(cells) == len(columns)
        for cell, (site, measure) in zip(cells, columns, strict=True):
            at = row.get((site, measure, metric, way))
            if at is None:
                assert (way, measure, cell) == ("local", "whole", "")
                continue
            sign = "+" if metric.startswith(DIFFERENCE) else ""
            assert cell.startswith(f"{at['value']:{sign}.3f}".replace("-", "−"))
            band = at["reason"] if at["lo"] is None else f"{at['lo']:.3f} to {at['hi']:.3f}"
            assert band.replace("-", "−") in cell
            assert band
    assert "1 of 2 folds left out: the site could not be trained alone" in section


def test_sites_and_their_outcomes_are_counted(told: dict[str, Any]) -> None:
    manifest, splits, sites = cohort()
    for one in told["sites"]:
        ids = sites[one["site"]]
        assert one["patients"] == len(ids)
        assert one["events"]["response"] == int(manifest.labels["response"].loc[ids, "value"].sum())
        assert one["events"]["<i>os"] == int(manifest.labels["<i>os"].loc[ids, "event"].sum())
        for fold in range(FOLDS):
            tested = splits[(splits["fold"] == fold) & (splits["part"] == "test")]["patient_id"]
            assert one["parts"]["test"][fold] == len(set(tested) & set(ids))
    assert told["all"]["patients"] == N
    assert told["all"]["parts"]["train"] == [N // 2, N // 2]


def test_hostile_names_are_words(told: dict[str, Any], html: str) -> None:
    seen = Seen(html)
    assert not {"b", "i", "u", "s", "script", "img", "link"} & seen.tags
    assert len(seen.ids) == len(set(seen.ids))
    words = " ".join(text for _, text in seen.texts)
    for word in (*SITES, "<i>os", "<s>4</s>", "<u>marks</u>"):
        assert word in words
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


def test_who_was_refused_silent_or_rejected_is_named(told: dict[str, Any], html: str) -> None:
    assert told["refused"] == [{"fold": 1, "site": "A/B", "sentence": "one class only among <s>4</s> patients"}]
    assert told["folds"][0]["told"] == []
    assert told["folds"][1]["told"] == [
        "round 1: the answer of <b>A is rejected: changes the model by 900, more than 10 times the usual 1",
        "round 1: .. was silent",
    ]
    words = " ".join(text for _, text in Seen(html).texts)
    assert "Fold 1, round 1: .. was silent" in words
    assert "A/B, fold 1: one class only" in words


def test_losses_and_moves_are_those_of_the_rounds(told: dict[str, Any]) -> None:
    second = told["folds"][1]
    assert second["loss"] == {"<b>A": [3.5, None], "A/B": [3.625, 3.25], "..": [3.75, None]}
    assert second["moved"] == [0.5, 0.0625]


def test_what_left_is_counted_by_site_and_kind(told: dict[str, Any], html: str) -> None:
    left = told["left"]
    second = next(one for one in left["sites"] if one["site"] == "A/B")
    assert second == {
        "site": "A/B", "messages_up": 4, "bytes_up": 4 * 140_000, "messages_down": 6, "bytes_down": 6 * 1010
    }  # fmt: skip
    assert {(kind["kind"], kind["messages"], kind["bytes"]) for kind in left["kinds"]} == {
        ("fit", 6, 2 * 420_000), ("train", 6, 2 * 420_000)
    }  # fmt: skip
    assert "560 kB" in html
    assert "6.1 kB" in html


def test_the_attack_is_that_of_the_losses_and_names_nobody(told: dict[str, Any], tmp_path: Path) -> None:
    manifest, splits, sites = cohort()
    whole = []
    for fold in range(FOLDS):
        each = [losses(fold, manifest, splits, site, ids) for site, ids in sites.items()]
        of = {task: np.concatenate([one.of[task] for one in each]) for task in TASKS}
        member = np.concatenate([one.member for one in each])
        whole.append(Losses([p for one in each for p in one.patients], member, of, [s for o in each for s in o.sites]))
    wanted = {attack.task: attack for attack in attacks(whole, 10, 0)}
    rows = {(r["way"], r["site"], r["task"], r["metric"]): r for r in told["membership"]}
    for task, attack in wanted.items():
        row = rows["federated", ALL, task, "membership_auc"]
        assert row["value"] == pytest.approx(attack.auc.value)
        assert (row["members"], row["others"]) == (attack.members, attack.others)
        assert rows["federated", ALL, task, "membership_found"]["value"] == pytest.approx(attack.found.value)
        assert rows["centralised", ALL, task, "membership_auc"]["value"] == row["value"]
    assert rows["federated", ALL, "response", "membership_auc"]["lo"] > 0.7
    assert {site for way, site, *_ in rows if way == "federated"} == {ALL, *SITES}
    (one,) = attacks([_only(fold, "A/B") for fold in whole], 10, 0)[:1]
    assert rows["federated", "A/B", "response", "membership_auc"]["value"] == pytest.approx(one.auc.value)
    written(tmp_path)
    text = (tmp_path / "federation" / "membership0.json").read_text()
    assert not any(patient in text for patient in manifest.patients.index)


def _only(told: Losses, site: str) -> Losses:
    here = np.array([own == site for own in told.sites])
    kept = [p for p, own in zip(told.patients, here, strict=True) if own]
    return Losses(kept, told.member[here], {t: x[here] for t, x in told.of.items()}, [site] * len(kept))


def test_without_records_it_says_so(tmp_path: Path) -> None:
    given = written(tmp_path)
    for fold in range(FOLDS):
        (tmp_path / "federation" / f"messages{fold}.jsonl").unlink()
    (tmp_path / "federation" / "membership1.json").unlink()
    bare = federate_report.account(SETTINGS, *given, tmp_path)
    assert bare["left"] is None
    assert bare["membership"] == []  # an attack on some of the folds would not speak of the run
    words = " ".join(text for _, text in Seen(page.render(bare).html).texts)
    assert "No log of messages was kept" in words
    assert "It was not taken in this run." in words


def test_what_privacy_has_cost_and_secure_summation_are_told(tmp_path: Path) -> None:
    given = written(tmp_path)
    for fold in range(FOLDS):
        file = tmp_path / "federation" / f"fold{fold}.json"
        kept = json.loads(file.read_text())
        for number, made in enumerate(kept["rounds"]):
            made["privacy"] = {s: {"epsilon": 1.5 + number + 0.25 * fold, "delta": 1e-5} for s in SITES}
            made["sites"] = {site: {"n": None} for site in SITES}
        file.write_text(json.dumps(kept))
    plan = {**PLAN, "secure": True, "privacy": {"enabled": True, "clip": 0.5, "noise": 1.25, "delta": 1e-5}}
    told = federate_report.account({**SETTINGS, "federated": plan}, *given, tmp_path)
    assert told["folds"][1]["privacy"]["A/B"]["epsilon"] == 2.75
    text = page.render(told).html
    assert_every_number_is_told(text, told)
    words = " ".join(text for _, text in Seen(text).texts)
    assert "2.75" in words
    assert "δ = 1e-05" in words
    assert "masked so that only the sum over the sites can be read, what privacy has cost so far" in words
    assert "The sites told no losses." in words


def test_one_way_alone_and_many_sites_can_be_told(tmp_path: Path) -> None:
    """Nothing to compare with, more sites than colours, a federation that stopped before its first round."""
    manifest, splits, _ = cohort()
    sites = {f"site {k}": list(manifest.patients.index[k::7]) for k in range(7)}
    predictions(manifest, splits, list(manifest.patients.index), 1.0, 2).to_csv(
        tmp_path / "predictions.csv", index=False
    )
    (tmp_path / "federation").mkdir()
    for fold in range(FOLDS):
        kept = record(fold, splits, sites)
        kept["rounds"] = kept["rounds"][: 1 - fold]
        (tmp_path / "federation" / f"fold{fold}.json").write_text(json.dumps(kept))
    told = federate_report.account(SETTINGS, manifest, splits, sites, tmp_path)
    made = page.render(told)
    assert {row["way"] for row in told["rows"]} == {"federated"}
    assert not any(row["metric"].startswith(DIFFERENCE) for row in told["rows"])
    assert [figure.name for figure in made.figures] == ["ways-1-response", "ways-2-i-os", "rounds-0"]
    assert "federated minus" not in made.html
    save([], made.figures, tmp_path)
    drawn = pd.read_csv(tmp_path / "figures" / "rounds-0.csv")
    assert list(drawn["loss:site 6"]) == [2.5 + 0.125 * 6]


def test_the_table_of_the_terminal_has_the_rows_of_the_account(told: dict[str, Any]) -> None:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(page.table(told, boxed=False))
    lines = captured.get().splitlines()
    rows = [r for r in told["rows"] if (r["site"], r["measure"]) == (ALL, "within")]
    for task, metric in (("response", "auc"), ("<i>os", "c_index")):
        own = {(r["metric"], r["way"]): r for r in rows if r["task"] == task}
        start = next(i for i, line in enumerate(lines) if line.strip().startswith(task))
        for k, way in enumerate(("federated", "centralised", "local")):
            at = own[metric, way]
            assert f"{way}" in lines[start + k]
            assert f"{at['value']:.3f} ({at['lo']:.3f} to {at['hi']:.3f})" in lines[start + k]
            if way != "federated":
                gap = own[DIFFERENCE + metric, way]
                assert f"{gap['value']:+.3f} ({gap['lo']:+.3f} to {gap['hi']:+.3f})" in lines[start + k]
            assert lines[start + k].count(" *") == (2 if way == "local" else 0)  # refused in one fold
    assert "* not over every fold and site" in captured.get()


@pytest.mark.slow
def test_a_real_run_with_hostile_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to the page; sites are folders of their own, and nothing is written outside the run."""
    monkeypatch.chdir(tmp_path)
    root = phantom.make(tmp_path / "cohort", level="features", n=96, site="shift")
    patients = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False)
    patients["site"] = patients["site"].map(dict(zip("ABC", SITES, strict=True)))
    patients.to_csv(root / "patients.csv", index=False)
    words = [
        "federate", "simulate", f"cohort.root={root}", "cohort.level=features", "cohort.n=96", "cohort.site=shift",
        "folds.n=2", "folds.workers=0", "name=one", "audit=0", "shapley=0", "trainer.max_epochs=1", "optim.min_steps=4",
        "modalities=[clinical,proteomics]", "tasks=[response,survival]", "bootstrap=50", "logger=none", "device=cpu",
    ]  # fmt: skip
    before = {path.name for path in tmp_path.iterdir()}
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    assert {path.name for path in tmp_path.iterdir()} - before <= {"runs", "out"}
    folder = tmp_path / "runs" / "federate" / "one"
    split = set(pd.read_csv(folder / "splits.csv", dtype=str)["patient_id"])  # who has some input and some label
    for way in ("sites", "local"):
        assert {path.name for path in (folder / way).iterdir()} == {"%3Cb%3EA", "A%2FB", "%2E."}
        for site, name in (("<b>A", "%3Cb%3EA"), ("..", "%2E."), ("A/B", "A%2FB")):
            ids = set(patients.loc[patients["site"] == site, "patient_id"]) & split
            own = pd.read_csv(folder / way / name / "predictions.csv", dtype=str)
            assert set(own["patient_id"]) == ids
    told = json.loads((folder / "federation.json").read_text())
    html = (folder / "federation.html").read_text()
    assert_every_number_is_told(html, told)
    assert not {"b", "script"} & Seen(html).tags
    assert {row["way"] for row in told["rows"]} == {"federated", "centralised", "local"}
    assert {row["way"] for row in told["membership"]} == {"federated", "centralised"}
    metrics = {(r["task"], r["fold"]): r for r in json.loads((folder / "metrics.json").read_text())}
    for row in told["rows"]:
        if row["measure"] == "whole" and row["way"] == "federated" and (row["metric"] in ("auc", "c_index")):
            assert row["value"] == pytest.approx(metrics[row["task"], "all"]["value"])
    train = pd.read_csv(folder / "splits.csv").query("part == 'train'").groupby("fold").size()
    for fold in told["folds"]:
        assert sum(fold["patients"].values()) == train[fold["number"]]
        assert len(fold["moved"]) == len(fold["rounds"]) > 0
        losses = json.loads((folder / "federation" / f"membership{fold['number']}.json").read_text())
        assert sum(sum(part["member"]) for part in losses["federated"]) == train[fold["number"]]
        assert sum(sum(part["member"]) for part in losses["centralised"]) == train[fold["number"]]
    again = CliRunner().invoke(app, [*words, "--resume"])
    assert again.exit_code == 0, again.output
    assert "fold 0 is finished and kept" in again.output
    assert json.loads((folder / "federation.json").read_text())["rows"] == told["rows"]
