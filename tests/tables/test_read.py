"""Tables on disk: text stays text, ways of writing are understood, what is broken is refused in one sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault
from nsclc_mtl.tables import read


def zipped(data: bytes, name: str = "t.csv", beside: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data)  # no clock: the bytes become names of tests
        if beside:
            archive.writestr(zipfile.ZipInfo(beside), b"x")
    return buffer.getvalue()


PLAIN = b"patient_id,age,sex\n00123,61.5,f\n1E5,70,m\nNA,,m\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b",", b";").replace(b"61.5", b"61,5"),
        zipped(PLAIN),
        zipped(zipped(PLAIN), "t.zip"),
        zipped(PLAIN, beside="__MACOSX/._t.csv"),
        PLAIN.rstrip(b"\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.decode().encode("utf-16"),
        PLAIN.decode().replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
        b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"),
        PLAIN.replace(b"\n", b"\n\n"),
        PLAIN.replace(b",sex", b',"sex"').replace(b"61.5", b'"61.5"'),
    ],
    ids=[
        "plain",
        "crlf",
        "bom",
        "tab",
        "semicolon",
        "zip",
        "nested zip",
        "zip of a Mac",
        "no last newline",
        "cr",
        "utf-16",
        "Unicode text of Excel",
        "utf-16 big",
        "blank lines",
        "quoted",
    ],
)
def test_one_table_written_in_many_ways(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    frame = read.read_indexed(tmp_path / "t.csv", "patient_id")
    assert frame.index.tolist() == ["00123", "1E5", "NA"]
    assert frame["sex"].tolist() == ["f", "m", "m"]
    assert read.numeric(frame["age"], "age").tolist()[:2] == [61.5, 70.0]
    assert np.isnan(read.numeric(frame["age"], "age")["NA"])


def test_parquet_is_text_too(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.1, None], "word": ["a", None]}, index=pd.Index(["007", "NA"], name="patient_id"))
    frame.to_parquet(tmp_path / "t.parquet")
    told = read.read_indexed(tmp_path / "t.parquet", "patient_id")
    assert told.index.tolist() == ["007", "NA"]
    assert told.to_dict("list") == {"x": ["0.1", ""], "word": ["a", ""]}


def test_the_decimal_comma_leaves_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id;x;y\n1,2;-1,5;2,5e-3\n3,4;7;,5\n")
    frame = read.read_indexed(tmp_path / "t.csv", "id")
    assert frame.index.tolist() == ["1,2", "3,4"]
    assert read.numeric(frame["x"], "x").tolist() == [-1.5, 7]
    assert read.numeric(frame["y"], "y").tolist() == [0.0025, 0.5]


@pytest.mark.parametrize("ids", [np.array([7, 123]), np.array([7.0, 123.0])], ids=["whole", "float"])
def test_numeric_ids_of_parquet_are_text_without_a_point(tmp_path: Path, ids: np.ndarray) -> None:
    pd.DataFrame({"patient_id": ids, "x": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    assert read.read_indexed(tmp_path / "t.parquet", "patient_id").index.tolist() == ["7", "123"]
    pd.DataFrame({"patient_id": [1.5, 2.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataFault, match="fractions in the id column 'patient_id'"):
        read.read_indexed(tmp_path / "t.parquet", "patient_id")


def test_a_separator_within_a_quoted_name_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,"a;b;c"\n1,2\n')
    assert read.read_indexed(tmp_path / "t.csv", "id").columns.tolist() == ["a;b;c"]


def test_a_decimal_comma_between_commas_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,x\n1,"61,5"\n2,"1.234,5"\n')
    with pytest.raises(DataFault, match=r"2 value.*\(1: '61,5'; 2: '1.234,5'\).*decimal comma is read only where `;`"):
        read.numeric(read.read_indexed(tmp_path / "t.csv", "id")["x"], "x")


def test_rows_are_counted_as_an_editor_counts_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\nid,x\n1,"a\nb"\n\n2,c\n')
    assert read.line_numbers(tmp_path / "t.csv") == [3, 6]


def test_a_sentence_quotes_no_date(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="P2: '####-##-##'"):
        read.numeric(pd.Series(["5", "2019-12-31"], index=["P1", "P2"]), "x")
    assert [read.shown(word) for word in ("31 Dec 2019", "1.5", "T1-2", "Stage IIA")] == [
        "## Dec ####", "1.5", "T1-2", "Stage IIA",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"patient_id,a,a\n1,2,3\n", "repeats the column"),
        (b"patient_id,a\n1,2,3\n4,5,6\n", "row 2 .*3 cells"),
        (b"patient_id,a\n1,2\n4,5,6\n", "row 3 .*3 cells"),
        (b"patient_id,a,b\n1,2,3\n4,5\n", "row 3"),
        (b'patient_id,a\n1,"2\n', "cannot be read"),
        (b"patient_id,a\n1,\xe9\n", "UTF-8"),
        ("patient_id,a\n1,2\n".encode("utf-16-le"), "UTF-8"),
        (b"\xff\xfep\x00a", "UTF-16, though"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(100), "spreadsheet"),
        (zipped(b"<xml/>", "[Content_Types].xml", beside="xl/workbook.xml"), "spreadsheet"),
        (b"PK\x03\x04junk", "archive"),
        (zipped(PLAIN)[:60], "archive"),
        (zipped(PLAIN, beside="other.csv"), "2 files"),
        (b"name,a\n1,2\n", "no column 'patient_id'"),
        (b"patient_id,a\n1,2\n ,3\n", "row 3.*blank"),
        (b'patient_id,a\n\n1,"2\n2"\n,3\n', "row 5.*blank"),
        (b"patient_id;a\n1;1,5\n2;2.5\n", "'a' holds '2.5' in a file with decimal commas"),
        (b"patient_id;a;b\n1;1,5;1.234\n", "'b' holds '1.234' in a file with decimal commas"),
        (b"patient_id;a;b\n1;1,5;1.234,5\n", "'b' holds '1.234,5' in a file with decimal commas"),
        (b"patient_id,a\n7,2\n7,3\n", "'7' more than once"),
    ],
)  # fmt: skip
def test_what_is_broken_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataFault, match=f"(?s)'t.csv'.*{told}"):
        read.read_indexed(tmp_path / "t.csv", "patient_id")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"no table 'absent.csv'"):
        read.read_text(tmp_path / "absent.csv")
    for name, told in (("t.xlsx", "spreadsheet"), ("t.parquet", "Parquet")):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(DataFault, match=told):
            read.read_text(tmp_path / name)


def test_a_name_that_begins_like_an_archive_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"PKID,x\n1,2\n")
    assert read.read_indexed(tmp_path / "t.csv", "PKID")["x"].tolist() == ["2"]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\x00"), min_size=1), unique=True))
def test_ids_survive_whatever_they_look_like(ids: list[str]) -> None:
    import tempfile

    ids = [name for name in ids if name.strip()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        pd.DataFrame({"patient_id": ids, "x": "1"}).to_csv(path, index=False, quoting=1)
        assert read.read_indexed(path, "patient_id").index.tolist() == ids


@pytest.mark.parametrize("word", ["inf", "1e400", "1,5", "1_000", "0x1F", "True", "12 mg", "61.5.2020"])
def test_words_are_no_numbers(word: str) -> None:
    table = pd.DataFrame({"a": ["1", "2"], "b": ["3", word]}, index=["P1", "P2"])
    with pytest.raises(DataFault, match=r"here: 1 value.*P2"):
        read.numeric(table["b"], "here")
    with pytest.raises(DataFault, match=r"modality 'm', column 'b': 1 value.*P2"):
        read.numeric_table(table, "modality 'm'")


def test_missing_words_are_missing() -> None:
    column = pd.Series([*read.MISSING, " NA ", " 5 "])
    values = read.numeric(column, "x")
    assert values.isna().tolist() == [True] * (len(column) - 1) + [False]
    assert read.numeric(pd.Series([None, np.nan, 3], dtype=object), "x").isna().tolist() == [True, True, False]
    assert read.numeric(pd.Series([np.nan, 3]), "x").isna().tolist() == [True, False]
    both = read.numeric_table(pd.DataFrame({"a": column, "b": 1.5}), "x")
    assert both["a"].equals(values.rename("a"))
    assert (both["b"] == 1.5).all()


def test_a_wide_table_is_what_its_columns_are_one_by_one() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    values = rng.normal(size=(40, 2000)).round(4)
    text = pd.DataFrame(values.astype(str)).rename(columns=str)
    made = read.numeric_table(text, "x")
    for name in text.columns[:50]:
        assert read.numeric(text[name], "x").equals(made[name])
    assert np.array_equal(made.to_numpy(), values)
