"""PyRadiomics' own batch table in, its own feature table out: `mtl extract scans.batch=cases.csv`.

Each case is read by the library itself, so that names, diagnostics and values are those of its command; only the work
is spread over processes, and a case that is complete for the same files and settings is not done again.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nsclc_mtl.records import DataFault, ItemFault, UsageFault
from nsclc_mtl.scans import crop, pool, radiomics
from nsclc_mtl.scans.job import Log
from nsclc_mtl.scans.params import resolved
from nsclc_mtl.scans.sources import content


def extract_batch(path: Path, cfg: Mapping[str, Any], out: Path, run: Log) -> None:
    """`features.csv` (and `.parquet`) below `out/scans/batch-<key8>/`: the table's own columns, then PyRadiomics'.

    The table has the columns Image and Mask (paths, relative to the table), perhaps Label and Label_channel, and any
    others, which are carried over. A case that cannot be measured keeps its row without features, as in the library's
    command, and is listed as failed. Raises `UsageFault` where there is no such file, `DataFault` where columns lack.
    """
    cfg, cases, folder = _plan(path, cfg, out)
    start = functools.partial(_start, params=cfg["radiomics"], folder=folder)
    workers = int(cfg.get("workers", 2))
    found: dict[str, dict[str, Any]] = {}
    todo = [(str(n), (n, case)) for n, case in enumerate(cases, 1)]
    for name, result in run.track(pool.work_through(todo, start, _finish, workers), "cases", total=len(cases)):
        found[name] = result
        if "reason" in result:
            run.say(f"case {name}: {result['reason']}: {result['sentence']}")
    for name, _ in todo:
        if "reason" in found[name]:
            run.failed.append({"id": f"case {name}", "reason": found[name]["reason"]})
        else:
            run.done.append(f"case {name}")
    rows = [{**case, **found[name].get("values", {})} for name, (_, case) in todo]
    if run.done:
        _write(folder, rows, set(cases[0]))
        wide = len(_columns(rows)) - len(cases[0])
        run.say(f"radiomics: {wide} columns of {len(run.done)} of {len(cases)} cases in {folder / 'features.csv'}")


def listed(path: Path, cfg: Mapping[str, Any], out: Path) -> int:
    """Prints which cases would be measured, kept or refused, and writes nothing; the exit code to expect."""
    cfg, cases, folder = _plan(path, cfg, out)
    count = dict.fromkeys(("todo", "kept", "refused"), 0)
    for number, case in enumerate(cases, 1):
        why = ""
        try:
            found = "todo" if _cached(*_identity(number, case, folder)) is None else "kept"
        except ItemFault as fault:
            found, why = "refused", f": {fault.reason}: {fault}"
        count[found] += 1
        print(f"{found:8}case {number}{why}")
    print(f"cases: {', '.join(f'{n} {word}' for word, n in count.items())}; nothing was written")
    return 0 if not count["refused"] else 4 if count["todo"] + count["kept"] else 3


def _plan(path: Path, cfg: Mapping[str, Any], out: Path) -> tuple[dict[str, Any], list[dict[str, str]], Path]:
    """The settings, the cases, and the folder of what is made of them."""
    cfg = resolved(cfg)
    if not cfg.get("radiomics"):
        raise UsageFault("scans.batch needs settings: give scans.params=FILE or a preset with scans.radiomics")
    cases = read_cases(path)
    code = radiomics.digest(radiomics.__file__, Path(__file__).name)
    table = hashlib.sha256(path.read_bytes()).hexdigest()
    return cfg, cases, Path(out) / "scans" / f"batch-{radiomics.key8(cfg['radiomics'], table, code)}"


def read_cases(path: Path) -> list[dict[str, str]]:
    """The rows of a batch table, with absolute paths of image and mask. Raises `UsageFault` or `DataFault`."""
    if not path.is_file():
        raise UsageFault(f"scans.batch: there is no file '{path}'; give a CSV with the columns Image and Mask")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        for name in ("Image", "Mask"):
            if name not in names:
                raise DataFault(f"'{path.name}' has no column '{name}'; PyRadiomics' batch table has Image and Mask")
        rows = [dict(row) for row in reader]
    if not rows:
        raise DataFault(f"'{path.name}' has no row; list one case a row")
    for line, row in enumerate(rows, 2):
        if None in row:
            raise DataFault(f"'{path.name}', line {line}, has more cells than the header; quote cells with commas")
        if None in row.values() or not row["Image"] or not row["Mask"]:
            raise DataFault(f"'{path.name}', line {line}, lacks a cell; name image and mask, or take the row out")
        for name in ("Image", "Mask"):
            row[name] = os.path.abspath(path.parent / row[name])
    return rows


def _start(task: tuple[int, Mapping[str, str]], params: Mapping[str, Any], folder: Path) -> pool.Result:
    return pool.guarded(lambda: _open(*task, params, folder))


def _identity(number: int, case: Mapping[str, str], folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where the result of a case lies, and what it must have been made of. Raises `ItemFault`."""
    for name in ("Image", "Mask"):
        if not Path(case[name]).is_file():
            raise ItemFault("absent", f"its {name.lower()} '{Path(case[name]).name}' does not exist; correct the path")
    chosen = {name: _whole(case, name) for name in ("Label", "Label_channel")}
    stamp = {"source": content(Path(case["Image"])) + content(Path(case["Mask"])), "chosen": chosen}
    return folder / "cases" / f"{number}.json", stamp


def _open(number: int, case: Mapping[str, str], params: Mapping[str, Any], folder: Path) -> pool.Result:
    file, stamp = _identity(number, case, folder)
    chosen, kept = stamp["chosen"], _cached(file, stamp)
    if kept is not None:
        return {"values": kept}
    opened = radiomics.open_lesion(
        case["Image"], case["Mask"], params, chosen["Label"], chosen["Label_channel"], diagnostics=True
    )
    return {"pending": pool.Pending({"": opened}, {"file": file, "stamp": stamp})}


def _finish(pending: pool.Pending, measured: pool.Measured) -> pool.Result:
    # as text, and in the library's own precision: a float32 maximum of .1 is written .1 and not .10000000149
    values = {name: str(value) for name, value in pending.closed(measured)[""].items()}
    file, stamp = pending.told["file"], pending.told["stamp"]
    whole = {**stamp, "values": values, "complete": 1}
    crop.publish(file, lambda part: _json(part, whole), lambda part: _cached(part, stamp) == values)
    return {"values": values}


def _whole(case: Mapping[str, str], name: str) -> int | None:
    text = case.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ItemFault("bad_label", f"its {name} is {text!r}; write a whole number") from None


def _json(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=1))


def _cached(path: Path, stamp: Mapping[str, Any]) -> dict[str, str] | None:
    try:
        told = json.loads(path.read_text())
        if told["complete"] != 1 or any(told[name] != value for name, value in stamp.items()):
            return None
        return dict(told["values"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of the first row, then what others add, sorted: the order of PyRadiomics' own table."""
    added = {name for row in rows[1:] for name in row} - set(rows[0])
    return [*rows[0], *sorted(added)]


def _write(folder: Path, rows: Sequence[Mapping[str, str]], given: set[str]) -> None:
    import pandas as pd

    columns = _columns(rows)

    def as_csv(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    crop.publish(folder / "features.csv", as_csv, lambda part: part.stat().st_size > 0)
    frame = pd.DataFrame(list(rows), columns=columns, dtype=object)
    for name in set(columns) - given:
        if not name.startswith("diagnostics_"):
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    crop.publish(folder / "features.parquet", frame.to_parquet, lambda part: len(pd.read_parquet(part)) == len(frame))
