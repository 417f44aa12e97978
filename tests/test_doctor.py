"""`mtl doctor`: what is missing is named, with what to do; a broken package is a finding and no crash."""

from __future__ import annotations

import sys

import pytest

from nsclc_mtl.commands import doctor


def test_this_environment_has_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor() == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "openslide", "monai", "pycox", "cores", "disk"):
        assert word in out


def test_absent_pyradiomics_comes_with_its_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "pyradiomics" else real(name))
    finding = doctor.pyradiomics()
    assert finding.state == "missing"
    assert "--no-build-isolation pyradiomics==3.0.1" in finding.do
    assert doctor.doctor() == 3
    assert "absent" in capsys.readouterr().out


def test_a_package_that_does_not_import_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    finding = {one.what: one for one in doctor.look()}["openslide"]
    assert finding.state == "missing"
    assert "ModuleNotFoundError" in finding.found


def test_torchvision_beside_a_cpu_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "_version", lambda name: "0.28.0")
    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    finding = doctor.torchvision()
    assert finding.state == "missing"
    assert "pip uninstall torchvision" in finding.do


def test_what_mtl_serve_lacks_is_a_note_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    monkeypatch.setattr(doctor.Path, "is_file", lambda self: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    finding = doctor.viewer()
    assert (finding.state, finding.do) == ("note", "install Node.js, then make viewer")
    assert "no openseadragon, no niivue" in finding.found
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert doctor.viewer().do == "pip install 'nsclc-mtl[viewer]'"
