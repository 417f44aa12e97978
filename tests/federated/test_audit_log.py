"""A log of messages in which nothing can be changed or taken out unseen."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from nsclc_mtl.federated.audit import AuditLog, verify
from nsclc_mtl.federated.messages import Message, digest, packed
from nsclc_mtl.records import IntegrityFault

TOLD = Message("train", 3, {"w": np.full((2, 3), 0.123456, "float32")}, {"metrics": {"loss": 0.5}, "secret": "P0017"})


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "site" / "audit.jsonl")
    log.say("begun", program="x")
    for site in ("a", "b", "c"):
        log.note("in", site, packed(TOLD), TOLD)
    log.note("dropped", "a", b"rubbish", None, why="it does not read")
    return log


def test_line_tells_size_hash_and_shapes_and_no_value(log):
    line = json.loads(log.path.read_text().splitlines()[1])
    data = packed(TOLD)
    assert (line["direction"], line["site"], line["kind"], line["round"]) == ("in", "a", "train", 3)
    assert (line["bytes"], line["sha256"]) == (len(data), digest(data))
    assert line["arrays"] == {"w": "float32[2, 3]"}
    assert line["metrics"] == {"loss": 0.5}
    assert line["words"] == ["metrics", "secret"]
    assert line["time"].endswith("+00:00")
    assert "P0017" not in log.path.read_text()
    assert "0.123" not in log.path.read_text()
    assert log.path.stat().st_mode & 0o077 == 0


def test_it_goes_on_where_it_was_left(log):
    assert verify(log.path, log.head) == (5, log.head)
    more = AuditLog(log.path)
    assert (more.lines, more.head) == (5, log.head)
    more.say("begun")
    assert verify(log.path) == (6, more.head)


@pytest.mark.parametrize("which", [0, 1, 3])
def test_line_taken_out_shows(log, which):
    kept = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(kept[:which] + kept[which + 1 :]))
    with pytest.raises(IntegrityFault, match=f"line {which + 1} "):
        verify(log.path)
    with pytest.raises(IntegrityFault):
        AuditLog(log.path)


def test_line_changed_shows(log):
    text = log.path.read_text()
    log.path.write_text(text.replace('"site": "b"', '"site": "x"'))
    with pytest.raises(IntegrityFault, match="line 4 "):
        verify(log.path)


def test_end_cut_off_shows_against_the_last_hash(log):
    kept = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(kept[:-1]))
    assert verify(log.path)[0] == 4
    with pytest.raises(IntegrityFault, match="at its end"):
        verify(log.path, log.head)


def test_line_that_was_cut_short_shows(log):
    log.path.write_bytes(log.path.read_bytes()[:-10])
    with pytest.raises(IntegrityFault, match="line 5 "):
        verify(log.path)


def test_threads_write_one_chain(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    threads = [threading.Thread(target=lambda: [log.say("x") for _ in range(20)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(log.path, log.head)[0] == 100
