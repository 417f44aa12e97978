"""Composition: ladder, plain words, and one sentence with the nearest name for every wrong word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nsclc_mtl.config import compose, config_hash, plain
from nsclc_mtl.config.overrides import parse
from nsclc_mtl.records import UsageFault

Write = Callable[[Path, dict[str, str]], None]


def test_ladder_groups_model_experiment_command_line(conf: Path) -> None:
    assert compose("toy", []).fusion.kind == "concat"
    assert compose("toy", ["model=moe_mil"]).fusion.kind == "experts"
    assert compose("toy", ["experiment=large"]).fusion.kind == "experts"
    assert compose("toy", ["experiment=large"]).seed == 7
    assert compose("toy", ["experiment=large", "seed=3", "fusion=concat"]).seed == 3
    assert compose("toy", ["experiment=large", "fusion=concat"]).fusion.kind == "concat"


def test_tasks_and_modalities_are_plain_values_beside_groups_of_that_name(conf: Path) -> None:
    cfg = compose("toy", ["tasks=[survival]", "modalities=[wsi,clinical]"])
    assert plain(cfg)["tasks"] == ["survival"]
    assert plain(cfg)["modalities"] == ["wsi", "clinical"]
    assert plain(cfg)["parts"]["tasks"]["binary"] == {"kind": "binary"}
    assert compose("toy", ["tasks=all"]).tasks is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seeed=1"], "did you mean 'seed'?"),
        (["modle=abmil"], "did you mean 'model'?"),
        (["cohort.m=3"], "did you mean 'cohort.n'?"),
        (["root=/data"], "did you mean 'cohort.root'?"),
        (["+seeed=1"], "did you mean 'seed'?"),
        (["++cohort.m=1"], "did you mean 'cohort.n'?"),
        (["~optim.lrr"], "did you mean 'optim.lr'?"),
        (["+optim.wieght_decay=0.1"], "no key 'optim.wieght_decay'"),
        (["optim.weight_decay=0.1"], "write +optim.weight_decay=..."),
        (["encoder.hidden=12"], "did you mean 'parts.modalities.bag.encoder.hidden'?"),
        (["encodr.hidden=12"], "did you mean 'parts.modalities.bag.encoder.hidden'?"),
        (["encoder.hiden=12"], "did you mean 'parts.modalities.bag.encoder.hidden'?"),
        (["encodr=abmil"], "did you mean 'encoder'?"),
        (["encoder.zzz=1"], "parts.modalities.bag.encoder has hidden"),
        (["survival.bins=5"], "did you mean 'parts.tasks.survival.fit.bins'?"),
        (["survival.fit.bins=5"], "did you mean 'parts.tasks.survival.fit.bins'?"),
        (["encoder={hidden: 12}"], "encoder is a group, pick one of abmil"),
        (["model=moe_mill"], "did you mean 'moe_mil'?"),
        (["model=zzz"], "there are abmil, moe_mil"),
        (["tasks=[grad]"], "did you mean 'grade'?"),
        (["modalities=[clinicl]"], "did you mean 'clinical'?"),
        (["cohort={n:3}"], "cohort is a group"),
        (["optim=null"], "leave the word out, or pick one of adamw"),
        (["optim.defaults={lr:1}"], "no key 'optim.defaults'"),
        (["model=abmil,moe_mil"], "add --sweep"),
        (["seed=1,2"], "add --sweep"),
        (["tasks=[grade"], "cannot read the override"),
        (["slides"], "is not an override"),
        (["hydra.run.dir=x"], "no key 'hydra.run.dir'"),
        (["+tasks=[grade]"], "write tasks=[name,name]"),
        (["backbone=resnet50"], "`mtl toy` has no key 'backbone'"),
    ],
)
def test_one_sentence_for_a_wrong_word(conf: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageFault) as fault:
        compose("toy", words)
    assert sentence in str(fault.value)
    assert len(str(fault.value).splitlines()) == 1


def test_all_wrong_words_are_told_at_once(conf: Path) -> None:
    with pytest.raises(UsageFault) as fault:
        compose("toy", ["seeed=1", "cohort.m=3"])
    assert len(str(fault.value).splitlines()) == 2


def test_plus_is_for_arguments_of_the_target_and_for_free_mappings(conf: Path) -> None:
    assert compose("toy", ["+optim.weight_decay=0.1"]).optim.weight_decay == 0.1
    assert compose("toy", ["+weights.grade=2"]).weights.grade == 2
    assert compose("toy", ["+cohort.tasks.grade.column=G"]).cohort.tasks.grade.column == "G"
    assert compose("toy", ["+cohort.tasks.stage={kind:ordinal}", "tasks=[stage]"]).tasks == ["stage"]


def test_model_beside_an_experiment_that_sets_it_names_both(conf: Path) -> None:
    with pytest.raises(UsageFault, match=r"model=abmil and experiment=large both set the model"):
        compose("toy", ["model=abmil", "experiment=large"])


def test_first_bare_word_of_tile_is_the_folder_of_slides(conf: Path) -> None:
    assert compose("tile", ["/data/a=b (2), [x]"]).slides.dir == "/data/a=b (2), [x]"
    assert compose("tile", ["it's/here"]).slides.dir == "it's/here"
    with pytest.raises(UsageFault, match="takes one folder"):
        compose("tile", ["a", "b"])


def test_paths_with_signs_of_the_grammar_are_taken_as_they_are(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (Path.cwd() / "a, b").mkdir()
    assert compose("toy", ["cohort.root=/tmp/My data (2)"]).cohort.root == "/tmp/My data (2)"
    assert compose("toy", ["cohort.root=./a, b"]).cohort.root == "./a, b"
    assert compose("toy", ["cohort.root=~/x"]).cohort.root == "/home/someone/x"


def test_names_of_runs_are_text(conf: Path) -> None:
    assert [compose("toy", [f"name={name}"]).name for name in ("007", "1e5", "a-b", "null")] == [
        "007",
        "1e5",
        "a-b",
        None,
    ]


def test_own_configurations_are_found(conf: Path, tmp_path: Path, write_conf: Write) -> None:
    own = tmp_path / "my own"
    write_conf(own, {"cohort/mine.yaml": "{root: there, n: 3, tasks: {os: {kind: survival}}, modalities: {}}"})
    assert compose("toy", ["cohort=mine", "tasks=[os]"], [own]).cohort.root == "there"
    with pytest.raises(UsageFault, match="no such folder"):
        compose("toy", [], [tmp_path / "absent"])


def test_configuration_reads_no_environment_but_its_own(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_ROOT", "/mnt/cohort")
    monkeypatch.setenv("HOME", "/home/someone")
    assert plain(compose("toy", ["cohort.root='${oc.env:MTL_ROOT}'"]))["cohort"]["root"] == "/mnt/cohort"
    for words in ("cohort.root='${oc.env:HOME}'", "cohort.root='${oc.env:HOME,x}'", "cohort.root='${now:%Y}'"):
        with pytest.raises(UsageFault) as fault:
            compose("toy", [words])
        assert "someone" not in str(fault.value)


def test_interpolation_to_nowhere_is_told(conf: Path) -> None:
    with pytest.raises(UsageFault, match=r"paths\.nowhere"):
        compose("toy", ["cohort.root='${paths.nowhere}'"])


def test_broken_yaml_is_told_with_its_file(conf: Path) -> None:
    (conf / "cohort" / "broken.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(UsageFault, match=r"no valid YAML.*broken\.yaml"):
        compose("toy", ["cohort=broken"])


def test_hash_follows_the_content_and_not_the_name(conf: Path) -> None:
    first = config_hash(compose("toy", ["name=a"]))
    assert first == config_hash(compose("toy", ["name=b"]))
    assert first != config_hash(compose("toy", ["seed=1"]))


def test_ids_of_patients_are_text(conf: Path) -> None:
    (override,) = parse("predict", ["patients=[00123, 1E5,NA,1.0,P 7]"])
    assert override.value() == ["00123", "1E5", "NA", "1.0", "P 7"]
    (quoted,) = parse("predict", ["patients=['1E5',\"a,b\"]"])
    assert [str(item) for item in quoted.value()] == ["1E5", "a,b"]
