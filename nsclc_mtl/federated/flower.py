"""The server's channel to its sites over Flower.

An answer that does not name the hash and the number of the question that was just asked is dropped, whoever sent it.
Sites are told apart by the public key with which Flower let their node in; where no keys are asked for (loopback) a
site names itself once, and no other node can take its name while it is there.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nsclc_mtl
from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.federated.letters import FAREWELL, KIND, WELCOME, body_of, gone, opened, sealed
from nsclc_mtl.federated.messages import Message, digest, packed, unpacked
from nsclc_mtl.records import IntegrityFault, TryAgain

if TYPE_CHECKING:
    from flwr.app import Message as Letter
    from flwr.app import RecordDict
    from flwr.serverapp import Grid

POLL_S = 0.25
GREETING_S = 20.0
MARGIN_S = 30.0  # that Flower keeps a question for longer than it is waited for, as clocks differ


@dataclass(frozen=True)
class Errand:
    """A question that is to be put to a node."""

    site: str
    node: int
    question: Message
    data: bytes  # the question packed
    body: RecordDict  # the same as Flower sends it


class FlowerChannel:
    """Asks the sites through `grid`. `roster` is site -> public key (PEM), or None where no keys are asked for.

    Every message is noted in `audit`. A site whose node goes is waited for until the time is over, and asked anew when
    it is back.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Mapping[str, bytes] | None,
        audit: AuditLog | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._grid, self._audit, self._say = grid, audit, say
        self._of_key = None if roster is None else {key: site for site, key in roster.items()}
        self._names: dict[int, str] = {}  # node -> site; of a site the last node is the one that is asked
        self._shy: dict[int, float] = {}  # node that did not greet -> when it may be asked again

    def sites(self) -> list[str]:
        """Names of the sites whose node is there and has greeted, sorted."""
        there = self._there()
        self._greet(there)
        return sorted({self._names[node] for node in there if node in self._names})

    def wait_for(self, sites: Sequence[str], timeout_s: float, at_least: int | None = None) -> list[str]:
        """The sites that are there when all of them are, or when the time is over and `at_least` are.

        Raises TryAgain where fewer came.
        """
        deadline, needed = time.monotonic() + timeout_s, len(sites) if at_least is None else at_least
        before: list[str] = []
        while True:
            here = self.sites()
            for site in sorted(set(here) - set(before)):
                self._say(f"site {site} is here")
            for site in sorted(set(before) - set(here)):
                self._say(f"site {site} is gone")
            before = here
            if set(sites) <= set(here):
                return here
            if time.monotonic() > deadline:
                if len(here) >= needed:
                    return here
                missing = ", ".join(sorted(set(sites) - set(here)))
                raise TryAgain(
                    f"{len(here)} of {len(sites)} sites came within {timeout_s:.0f} s, {needed} are needed (missing: "
                    f"{missing}): see that their clients run, and repeat the command"
                )
            time.sleep(1.0)

    def ask(self, questions: Mapping[str, Message], timeout_s: float) -> dict[str, Message]:
        """Answers by site. A site that says nothing within `timeout_s`, or something else, is not among them."""
        self.sites()
        nodes = {site: node for node, site in self._names.items()}
        return self._asked({site: (nodes.get(site), question) for site, question in questions.items()}, timeout_s)

    def farewell(self, timeout_s: float = 15.0) -> None:
        """Tells the sites that are there that nothing more will be asked."""
        here = self.sites()
        self.ask(dict.fromkeys(here, Message(FAREWELL, 0)), timeout_s)

    # -----------------------------------------------------------------------------------------------------------------

    def _there(self) -> dict[int, str | None]:
        """Nodes that are there -> the site of their key; None where no keys are asked for."""
        import httpx

        try:
            nodes = {node.node_id: node.public_key for node in self._grid.get_nodes()}
        except httpx.HTTPError as wrong:
            raise _silent(wrong) from wrong
        if self._of_key is None:
            return dict.fromkeys(nodes)
        return {node: self._of_key[key] for node, key in nodes.items() if key in self._of_key}

    def _greet(self, there: Mapping[int, str | None]) -> None:
        now = time.monotonic()
        new = [node for node in there if node not in self._names and self._shy.get(node, now) <= now]
        if not new:
            return
        greeting = Message(WELCOME, 0, words={"program": nsclc_mtl.__version__})
        called = {node: there[node] or str(node) for node in new}
        answers = self._asked({called[node]: (node, greeting) for node in new}, GREETING_S)
        for node in new:
            said = answers.get(called[node])
            name = str(said.words.get("site", "")) if said is not None and said.kind == WELCOME else ""
            if not name or not self._may_be(name, there[node], there):
                self._shy[node] = time.monotonic() + 2 * GREETING_S
                continue
            for old in [n for n, site in self._names.items() if site == name]:
                del self._names[old]
            self._names[node] = name

    def _may_be(self, name: str, by_key: str | None, there: Mapping[int, str | None]) -> bool:
        if by_key is not None and name != by_key:
            self._say(f"a client calls itself {name} and holds the key of {by_key}: it is not asked")
            return False
        if any(site == name and old in there for old, site in self._names.items()):
            self._say(f"a second client calls itself {name}: it is not asked")
            return False
        return True

    def _asked(self, questions: Mapping[str, tuple[int | None, Message]], timeout_s: float) -> dict[str, Message]:
        """Each question in a thread of its own: a site that is slow to send holds up nobody else."""
        import httpx

        deadline, over, lock = time.monotonic() + timeout_s, threading.Event(), threading.Lock()
        answers: dict[str, Message] = {}
        failed: list[Exception] = []

        def run(errand: Errand) -> None:
            try:
                answer = self._answer(errand, deadline, over)
            except httpx.TransportError as wrong:
                failed.append(wrong)
                return
            except Exception as wrong:  # an answer may be made to break whoever reads it; it breaks nobody else's
                self._drop(errand, b"", f"it cannot be read ({type(wrong).__name__})")
                return
            with lock:
                if answer is not None and not over.is_set():
                    answers[errand.site] = answer

        errands = _errands(questions)
        threads = [threading.Thread(target=run, args=(e,), name=f"ask {e.site}", daemon=True) for e in errands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with lock:
            over.set()
        if failed:
            raise _silent(failed[0])
        return dict(sorted(answers.items()))

    def _answer(self, errand: Errand, deadline: float, over: threading.Event) -> Message | None:
        from flwr.app import Message as Letter

        def going_on() -> bool:
            return time.monotonic() < deadline and not over.is_set()

        while going_on():
            number, ttl = secrets.token_hex(16), deadline - time.monotonic() + MARGIN_S
            content, of = sealed(errand.body, errand.data, number), str(errand.question.round)
            letters = [Letter(content, errand.node, KIND, ttl=ttl, group_id=of)]
            sent = [identity for identity in self._grid.push_messages(letters) if identity]
            if sent:
                self._note("out", errand.site, errand.data, errand.question)
            while sent and going_on():
                replies = list(self._grid.pull_messages(sent))
                if replies and not gone(replies[0]):
                    return self._judged(replies[0], errand, number)
                if replies:
                    self._note("lost", errand.site, errand.data, errand.question)
                    break
                over.wait(POLL_S)
            while going_on() and errand.node not in self._there():
                over.wait(4 * POLL_S)
        return None

    def _judged(self, reply: Letter, errand: Errand, number: str) -> Message | None:
        """The answer in a letter that answers this question; None, with a note, for anything else."""
        data = b""
        try:
            if reply.has_error():
                raise IntegrityFault(f"the client failed: {reply.error.reason}")
            if reply.metadata.src_node_id != errand.node:
                raise IntegrityFault("it is from another site")
            data, about = opened(reply.content)
            if about.get("number") != number or about.get("answers") != digest(errand.data):
                raise IntegrityFault("it answers another question: a message was sent again")
            answer = unpacked(data)
            if answer.round != errand.question.round:
                raise IntegrityFault(f"it is of question {answer.round}, not {errand.question.round}")
        except IntegrityFault as fault:
            self._drop(errand, data, str(fault))
            return None
        self._note("in", errand.site, data, answer)
        return answer

    def _drop(self, errand: Errand, data: bytes, why: str) -> None:
        self._say(f"the answer of {errand.site} is dropped: {why}")
        self._note("dropped", errand.site, data, None, question=errand.question.round, why=why)

    def _note(self, direction: str, site: str, data: bytes, message: Message | None, **more: Any) -> None:
        if self._audit is not None:
            self._audit.note(direction, site, data, message, **more)


def _errands(questions: Mapping[str, tuple[int | None, Message]]) -> list[Errand]:
    """Of the sites that have a node. A question that several are asked is packed once."""
    bodies: dict[int, tuple[bytes, RecordDict]] = {}
    out = []
    for site, (node, question) in questions.items():
        if node is None:
            continue
        if id(question) not in bodies:
            data = packed(question)
            bodies[id(question)] = data, body_of(data)
        out.append(Errand(site, node, question, *bodies[id(question)]))
    return out


def _silent(wrong: Exception) -> TryAgain:
    return TryAgain(
        f"Flower's SuperLink fails ({type(wrong).__name__}: {wrong}): see superlink.log, repeat the command"
    )
