"""The server's channel and a site's app, with Flower's own messages and a grid in this process."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nsclc_mtl.federated.app import client_app
from nsclc_mtl.federated.audit import AuditLog, verify
from nsclc_mtl.federated.flower import FlowerChannel
from nsclc_mtl.federated.letters import body_of, opened, sealed
from nsclc_mtl.federated.messages import Message, digest, packed
from nsclc_mtl.records import DataFault, IntegrityFault, TryAgain

flwr_app = pytest.importorskip("flwr.app", reason="the extra `federated` is not installed")


class Worker:
    def __init__(self):
        self.questions = []

    def answer(self, question):
        self.questions.append(question)
        return Message(question.kind, question.round, {"x": question.arrays["x"] + 1}, {"n": 7})


class Grid:
    """Nodes that answer at once by their apps; `twist` may change a reply, or keep it back (None)."""

    def __init__(self, **apps):
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.apps = dict(enumerate(apps.values(), start=10))
        self.keys = {number: name.encode() for number, name in enumerate(apps, start=10)}
        self.here, self.replies, self.asked = set(self.apps), {}, []
        self.twist = lambda node, letter, reply: reply

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, public_key=self.keys[node]) for node in sorted(self.here)]

    def push_messages(self, letters):
        out = []
        for letter in letters:
            node = letter.metadata.dst_node_id
            letter.metadata.__dict__["_message_id"] = f"m{len(self.asked)}"
            self.asked.append(letter)
            reply = self.apps[node](letter, None) if node in self.here else gone(letter)
            self.replies[letter.metadata.message_id] = self.twist(node, letter, reply)
            out.append(letter.metadata.message_id)
        return out

    def pull_messages(self, ids):
        replies = [self.replies.get(number) for number in ids]
        for number in ids:
            if self.replies.get(number) is not None:
                del self.replies[number]
        return [reply for reply in replies if reply is not None]


def gone(letter):
    from flwr.common.constant import ErrorCode

    return flwr_app.Message(flwr_app.Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=letter)


ROSTER = {"a": b"a", "b": b"b"}


@pytest.fixture
def made(tmp_path):
    """A channel to two sites, the grid between, their workers and what was said."""
    workers = {"a": Worker(), "b": Worker()}
    grid = Grid(**{site: client_app(site, worker) for site, worker in workers.items()})
    said = []
    channel = FlowerChannel(grid, ROSTER, AuditLog(tmp_path / "audit.jsonl"), said.append)
    return SimpleNamespace(channel=channel, grid=grid, workers=workers, said=said, audit=tmp_path / "audit.jsonl")


def question(number, x=(1.0, 2.0)):
    return Message("train", number, {"x": np.asarray(x)}, {"fold": 0})


def ask(made, number, timeout_s=2.0, sites=("a", "b")):
    return made.channel.ask(dict.fromkeys(sites, question(number)), timeout_s)


def test_questions_and_answers(made):
    assert made.channel.sites() == ["a", "b"]
    answers = ask(made, 1)
    assert sorted(answers) == ["a", "b"]
    np.testing.assert_array_equal(answers["a"].arrays["x"], [2.0, 3.0])
    assert answers["b"].words == {"n": 7}
    assert made.workers["a"].questions[0].words == {"fold": 0}
    assert ask(made, 2, sites=["b", "nobody"]).keys() == {"b"}
    assert verify(made.audit)[0] == 2 * (2 + 2) + 2  # greetings, the first question, the second


def test_answer_to_another_question_is_dropped(made):
    kept = {}

    def replay(node, letter, reply):
        if letter.metadata.group_id == "0" or node == 10:
            return reply
        return flwr_app.Message(kept.setdefault("first", reply).content, reply_to=letter)

    made.grid.twist = replay
    assert sorted(ask(made, 1)) == ["a", "b"]
    assert sorted(ask(made, 2)) == ["a"]
    assert sorted(ask(made, 1)) == ["a"]  # also where the question is the same to the byte
    assert "sent again" in made.said[-1]
    assert '"direction": "dropped"' in made.audit.read_text()


@pytest.mark.parametrize("change", ["bytes", "hash", "round", "nothing", "rubbish", "error", "node", "break"])
def test_what_is_no_answer_is_dropped(made, change):
    def twist(node, letter, reply):
        if letter.metadata.group_id == "0" or node == 10:
            return reply
        data, about = opened(reply.content)
        number, answers = about["number"], about["answers"]
        wrong = data[:-1] + bytes([data[-1] ^ 1])
        other = packed(Message("train", 9))
        if change == "node":
            reply.metadata.__dict__["_src_node_id"] = 10
            return reply
        if change == "error":
            return flwr_app.Message(flwr_app.Error(2, "ValueError"), reply_to=letter)
        if change == "break":
            return SimpleNamespace(has_error=lambda: False, metadata=SimpleNamespace(src_node_id=node), content=0.5)
        content = {
            "bytes": lambda: flwr_app.RecordDict({**body_of(wrong), "about": reply.content["about"]}),
            "hash": lambda: sealed(body_of(data), data, number, "0" * 64),
            "round": lambda: sealed(body_of(other), other, number, answers),
            "nothing": lambda: flwr_app.RecordDict({}),
            "rubbish": lambda: sealed(body_of(b"rubbish"), b"rubbish", number, answers),
        }[change]()
        return flwr_app.Message(content, reply_to=letter)

    made.channel.sites()
    made.grid.twist = twist
    assert sorted(ask(made, 1)) == ["a"]
    assert any("answer of b is dropped" in sentence for sentence in made.said)


def test_site_that_is_silent_holds_up_nobody(made):
    made.channel.sites()
    made.grid.twist = lambda node, letter, reply: None if node == 11 else reply
    began = time.monotonic()
    assert sorted(ask(made, 1, 0.6)) == ["a"]
    assert time.monotonic() - began < 1.5


def test_site_whose_answer_stalls_holds_up_nobody(made):
    """Flower waits for hours for the rest of an answer; the channel does not."""
    made.channel.sites()
    stall, pull = threading.Event(), made.grid.pull_messages

    def stalled(ids):
        if any(reply is not None and reply.metadata.src_node_id == 11 for reply in map(made.grid.replies.get, ids)):
            stall.wait(30)
        return pull(ids)

    made.grid.pull_messages = stalled
    began = time.monotonic()
    assert sorted(ask(made, 1, 0.6)) == ["a"]
    assert time.monotonic() - began < 1.5
    stall.set()


def test_site_that_comes_back_in_time_is_asked_anew(made):
    made.channel.sites()
    made.grid.here = {10}
    threading.Timer(0.6, lambda: made.grid.here.add(11)).start()
    assert sorted(ask(made, 1, 5.0)) == ["a", "b"]
    numbers = {opened(letter.content)[1]["number"] for letter in made.grid.asked}
    assert len(numbers) == len(made.grid.asked)  # none is used twice
    made.grid.here = {10}
    assert made.channel.sites() == ["a"]
    assert sorted(ask(made, 2, 0.6)) == ["a"]


def test_only_keys_of_the_roster_are_asked(made):
    app = client_app("b", Worker())
    made.grid.apps[12], made.grid.keys[12] = app, b"strange"
    made.grid.here = {10, 12}
    assert made.channel.sites() == ["a"]
    assert {letter.metadata.dst_node_id for letter in made.grid.asked} == {10}


def test_site_is_who_its_key_says(tmp_path):
    said = []
    channel = FlowerChannel(Grid(a=client_app("a", Worker()), b=client_app("a", Worker())), ROSTER, None, said.append)
    assert channel.sites() == ["a"]
    assert "holds the key of b" in said[0]


def test_without_keys_a_name_is_taken_once():
    said = []
    grid = Grid(x=client_app("a", Worker()), y=client_app("a", Worker()), z=client_app("b", Worker()))
    channel = FlowerChannel(grid, None, None, said.append)
    assert channel.sites() == ["a", "b"]
    assert said == ["a second client calls itself a: it is not asked"]
    channel.ask({"a": question(1)}, 2.0)
    assert grid.asked[-1].metadata.dst_node_id == 10
    grid.here = {11, 12}  # the first went, and the second may be what it was started anew as
    channel._shy.clear()
    assert channel.sites() == ["a", "b"]
    channel.ask({"a": question(2)}, 2.0)
    assert grid.asked[-1].metadata.dst_node_id == 11


def test_sites_are_waited_for(made, monkeypatch):
    made.grid.here = {10}
    with pytest.raises(TryAgain, match=r"1 of 2 sites came .* \(missing: b\)"):
        made.channel.wait_for(["a", "b"], 0.1)
    assert made.channel.wait_for(["a", "b"], 0.1, at_least=1) == ["a"]
    threading.Timer(0.5, lambda: made.grid.here.add(11)).start()
    assert made.channel.wait_for(["a", "b"], 10.0) == ["a", "b"]
    assert "site b is here" in made.said


def test_superlink_that_fails_is_told(made):
    import httpx

    made.channel.sites()

    def fail(*_):
        raise httpx.ConnectError("refused")

    made.grid.push_messages = fail
    with pytest.raises(TryAgain, match=r"superlink\.log"):
        ask(made, 1)
    made.grid.get_nodes = fail
    with pytest.raises(TryAgain, match=r"superlink\.log"):
        made.channel.sites()


# ---------------------------------------------------------------------------------------------------------------------


def letter_of(message, number="n1"):
    Grid()  # the identity of a task, which letters need
    data = packed(message)
    letter = flwr_app.Message(sealed(body_of(data), data, number), 10, "query", ttl=60.0, group_id=str(message.round))
    letter.metadata.__dict__["_message_id"] = "m"
    return letter


def test_app_answers_by_the_hash_and_number_of_the_question(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    letter = letter_of(question(4))
    data, about = opened(client_app("a", Worker(), log)(letter, None).content)
    assert about == {"sha256": digest(data), "number": "n1", "answers": digest(packed(question(4)))}
    assert verify(log.path)[0] == 2


def test_app_says_farewell():
    over = []
    app = client_app("a", Worker(), None, print, lambda: over.append(1))
    app(letter_of(question(1)), None)
    assert over == []
    app(letter_of(Message("farewell", 0)), None)
    assert over == [1]


@pytest.mark.parametrize("fault", [DataFault("patient P0017 is wrong"), KeyError("P0017")])
def test_words_of_a_failure_stay_at_the_site(fault):
    from nsclc_mtl.federated.messages import unpacked

    class Failing:
        def answer(self, question):
            raise fault

    said = []
    reply = client_app("a", Failing(), None, said.append)(letter_of(question(1)), None)
    data, _ = opened(reply.content)
    answer = unpacked(data)
    assert answer.kind == "refused"
    assert answer.words["code"] == (3 if isinstance(fault, DataFault) else 1)
    assert b"P0017" not in data
    assert "P0017" in said[0]


def test_letter_that_was_changed_is_no_question():
    letter = letter_of(question(1))
    data = packed(question(2))
    letter.content["message"] = body_of(data)["message"]
    with pytest.raises(IntegrityFault, match="hash differs"):
        client_app("a", Worker())(letter, None)
