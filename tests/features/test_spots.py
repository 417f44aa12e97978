"""Sections: what Visium, AnnData and our own layout hold comes out alike; what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import visium

from nsclc_mtl.features import section_files, spots, store
from nsclc_mtl.records import DataFault, IntegrityFault

GENES = ["TP53", "EGFR", "KRAS", "ACTB"]
RNG = np.random.Generator(np.random.PCG64(0))
COUNTS = RNG.poisson(3, (6, 4))
COUNTS[2] = 0  # a spot without any count
PLACES = np.array([[50, 500], [400, 100], [300, 100], [70, 300], [90, 300], [1000, 45]])
ORDER = np.lexsort((PLACES[:, 0], PLACES[:, 1]))


def expected() -> np.ndarray:
    """log1p of counts per 10,000, spot by spot."""
    out = np.zeros(COUNTS.shape)
    for i, row in enumerate(COUNTS):
        out[i] = [np.log(1 + c / row.sum() * 10_000) if row.sum() else 0.0 for c in row]
    return out[ORDER]


def converted(source: Path, out: Path, **options: str) -> tuple[np.ndarray, np.ndarray]:
    spots.convert(source, out, **options)
    return spots.read(out, GENES)


@pytest.mark.parametrize("form", ["visium", "before 2.0", "csr_matrix", "csc_matrix", "array", "features"])
def test_every_format_gives_the_same_spots(tmp_path: Path, form: str) -> None:
    if form in ("visium", "before 2.0"):
        source = visium.visium(tmp_path / "s", COUNTS, PLACES, GENES, header=form == "visium")
    elif form == "features":
        source = visium.features(tmp_path / "s.h5", COUNTS, PLACES, GENES)
    else:
        source = visium.h5ad(tmp_path / "s.h5ad", COUNTS, PLACES, GENES, form)
    values, coords = converted(source, tmp_path / "out" / "s1.h5")
    np.testing.assert_allclose(values, expected(), rtol=2e-3)
    corner = 45 if "h5" not in source.suffix else 0  # half the diameter of Visium's spots
    np.testing.assert_array_equal(coords, PLACES[ORDER] - corner)
    seen = store.read(tmp_path / "out" / "s1.h5")  # a feature file like any other
    np.testing.assert_array_equal(seen.features, values)
    assert seen.attrs["values"] == "counts"
    assert all(len(digest) == 64 for digest in seen.attrs["origin"].values())
    assert seen.attrs.get("patch_size_level0", 90) == 90


def test_it_is_converted_once_and_again_where_the_source_changed(tmp_path: Path) -> None:
    source, out = visium.features(tmp_path / "s.h5", COUNTS, PLACES, GENES), tmp_path / "s1.h5"
    spots.convert(source, out)
    before = out.stat().st_mtime_ns
    spots.convert(source, out)
    assert out.stat().st_mtime_ns == before
    visium.features(source, COUNTS * 2 + 1, PLACES, GENES)
    spots.convert(source, out)
    assert out.stat().st_mtime_ns != before
    digest = spots.about(out)["config_hash"]
    assert store.is_complete(out, digest, deep=True)
    with h5py.File(out, "a") as file:
        file["genes"][0] = b"OTHER"
    assert not store.is_complete(out, digest, deep=True)


def test_genes_of_one_name_and_antibodies(tmp_path: Path) -> None:
    source = visium.visium(
        tmp_path / "s", COUNTS, PLACES, ["TBCE", "EGFR", "TBCE", "CD3"], ids=["E1", "E2", "E3", "AB"],
        kinds=["Gene Expression"] * 3 + ["Antibody Capture"],
    )  # fmt: skip
    assert section_files.read_section(source).genes == ["TBCE|E1", "EGFR", "TBCE|E3"]
    twice = visium.features(tmp_path / "t.h5", COUNTS, PLACES, ["A", "B", "A", "C"])
    with pytest.raises(DataFault, match=r"names 1 gene\(s\) more than once: A"):
        spots.convert(twice, tmp_path / "t1.h5")


def test_what_is_no_section_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFault, match=r"'empty/' holds no filtered_feature_bc_matrix.h5"):
        spots.convert(tmp_path / "empty", out)
    folder = visium.visium(tmp_path / "s", COUNTS, PLACES, GENES)
    with pytest.raises(DataFault, match="name the folder instead"):
        spots.convert(folder / section_files.MATRIX, out)
    table = folder / "spatial" / "tissue_positions.csv"
    table.write_text(table.read_text().replace("AAAC0003-1", "GGGG0003-1"))
    with pytest.raises(DataFault, match=r"lacks 1 of 6 spots of the matrix \(AAAC0003-1\)"):
        spots.convert(folder, out)
    table.write_text(table.read_text().replace(",300,70", ",300,left"))
    with pytest.raises(DataFault, match="is no barcode, in_tissue"):
        spots.convert(folder, out)
    table.unlink()
    with pytest.raises(DataFault, match=r"holds no spatial/tissue_positions.csv"):
        spots.convert(folder, out)
    broken = visium.features(tmp_path / "b.h5", COUNTS + 0.5, PLACES, GENES)
    with pytest.raises(DataFault, match=r"holds no counts .*values: normalised"):
        spots.convert(broken, out)
    values, _ = converted(broken, out, values="normalised")
    np.testing.assert_allclose(values, (COUNTS + 0.5)[ORDER])
    with pytest.raises(DataFault, match="3 genes do not belong together"):
        spots.convert(visium.features(tmp_path / "g.h5", COUNTS, PLACES, GENES[:3]), out)
    scattered = visium.h5ad(tmp_path / "a.h5ad", COUNTS, PLACES, GENES)
    with pytest.raises(DataFault, match="no layers/counts"):
        spots.convert(scattered, out, layer="counts")
    with h5py.File(scattered, "a") as file:
        del file["obsm"]
    with pytest.raises(DataFault, match="no obsm/spatial"):
        spots.convert(scattered, out)
    (tmp_path / "text.h5ad").write_text("no HDF5")
    with pytest.raises(DataFault, match="not a whole HDF5 file"):
        spots.convert(tmp_path / "text.h5ad", out)


def test_sections_hold_the_same_genes(tmp_path: Path) -> None:
    made = {}
    for name, genes in (("a", GENES), ("b", GENES[::-1]), ("c", [*GENES[:3], "MYC"])):
        made[name] = tmp_path / f"{name}.h5"
        spots.convert(visium.features(tmp_path / f"source-{name}.h5", COUNTS, PLACES, genes), made[name])
    spots.same_genes({name: made[name] for name in "ab"})  # another order is no other list
    assert not np.array_equal(spots.read(made["a"], GENES[:1])[0], spots.read(made["b"], GENES[:1])[0])
    with pytest.raises(IntegrityFault, match=r"'a' and 'c' hold other genes \(4 and 4; not in both: ACTB, MYC\)") as it:
        spots.same_genes(made)
    assert it.value.exit_code == 5
    with pytest.raises(IntegrityFault, match=r"lacks 1 gene\(s\) of the model: ACTB"):
        spots.read(made["c"], GENES)
    assert json.dumps(spots.genes_of(made["b"])) == json.dumps(GENES[::-1])
