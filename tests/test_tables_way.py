"""`table_encoder=NAME`: clinical tables by each encoder, and their tokens where a fusion reads some."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_way import Way, wide

from nsclc_mtl.commands.fold_files import load_fold


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("encoder", ["linear", "mlp", "snn", "transformer"])
def test_clinical_tables_by_each_encoder(way: Way, encoder: str) -> None:
    words = ("modalities=[clinical]", "tasks=[grade]", "audit=0", "folds.validation=0", f"table_encoder={encoder}")
    assert way.train(encoder, *words) == 0
    assert way.predict(encoder, ckpt=way.folder(name=encoder)) == 0
    held = way.table(name=encoder)
    before = wide(held[held["part"] == "test"])
    pd.testing.assert_series_equal(wide(way.table("predict", encoder))[before.index], before, rtol=1e-4, atol=1e-5)


def test_a_token_a_column_is_what_a_fusion_reads(way: Way) -> None:
    words = ("modalities=[wsi,clinical]", "tasks=[grade]", "audit=0", "table_encoder=transformer", "model=coattention")
    assert way.train("tokens", *words) == 0
    folder: Path = way.folder(name="tokens")
    (member, *_), fitted, _, _ = load_fold(yaml.safe_load((folder / "config.yaml").read_text()), folder / "fold0")
    columns = member.encoders["clinical"].columns
    assert columns == tuple(fitted.tables["clinical"].sources)
    assert len(columns) < fitted.tables["clinical"].dim  # one-hot groups are one token
