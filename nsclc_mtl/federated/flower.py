"""Questions and answers as Flower's messages: the server's channel, and the app of a site.

A message of ours travels as one array of bytes, which Flower cuts into pieces and checks by their hashes, beside a
record with its SHA-256 and a random number that is used once. An answer names the hash and the number of its question;
one that does not is dropped, whoever sent it. Sites are told apart by the public key with which Flower let their node
in; where no keys are asked for (loopback) a site names itself once, and no other node can take its name while it is
there.
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
from nsclc_mtl.federated.inside import Answering
from nsclc_mtl.federated.messages import Message, digest, packed, unpacked
from nsclc_mtl.records import Fault, IntegrityFault, TryAgain

if TYPE_CHECKING:
    from flwr.app import Message as Letter
    from flwr.app import RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

WELCOME, FAREWELL = "welcome", "farewell"  # kinds of message that are of the transport's own
KIND = "query"  # what all of them are to Flower
POLL_S = 0.25
GREETING_S = 20.0
MARGIN_S = 30.0  # that Flower keeps a question for longer than it is waited for, as clocks differ


@dataclass(frozen=True)
class Asked:
    """A question on its way to a node."""

    site: str
    node: int
    data: bytes
    question: Message
    number: str  # used once


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
        nodes = {node.node_id: node.public_key for node in self._grid.get_nodes()}
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
        deadline, over = time.monotonic() + timeout_s, threading.Event()
        bodies: dict[int, tuple[bytes, RecordDict]] = {}
        for _, question in questions.values():
            if id(question) not in bodies:
                data = packed(question)
                bodies[id(question)] = data, _body(data)
        answers: dict[str, Message] = {}
        wrong: list[BaseException] = []

        def one(site: str, node: int, question: Message) -> None:
            data, body = bodies[id(question)]
            try:
                answer = self._answer(site, node, question, data, body, deadline, over)
                if answer is not None and not over.is_set():
                    answers[site] = answer
            except Exception as failure:
                wrong.append(failure)

        threads = [
            threading.Thread(target=one, args=(site, node, question), name=f"ask {site}", daemon=True)
            for site, (node, question) in questions.items()
            if node is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        over.set()
        if wrong and not answers:
            raise TryAgain(f"the SuperLink does not answer ({wrong[0]}): repeat the command") from wrong[0]
        return dict(sorted(answers.items()))

    def _answer(
        self,
        site: str,
        node: int,
        question: Message,
        data: bytes,
        body: RecordDict,
        deadline: float,
        over: threading.Event,
    ) -> Message | None:
        from flwr.app import Message as Letter

        while (left := deadline - time.monotonic()) > 0 and not over.is_set():
            asked = Asked(site, node, data, question, secrets.token_hex(16))
            letter = Letter(
                _sealed(body, data, asked.number), node, KIND, ttl=left + MARGIN_S, group_id=str(question.round)
            )
            sent = [number for number in self._grid.push_messages([letter]) if number]
            if sent:
                self._note("out", site, data, question)
            while sent and time.monotonic() < deadline and not over.is_set():
                replies = list(self._grid.pull_messages(sent))
                if replies and not _gone(replies[0]):
                    return None if over.is_set() else self._judged(replies[0], asked)
                if replies:
                    self._note("lost", site, data, question)
                    break
                over.wait(POLL_S)
            while time.monotonic() < deadline and not over.is_set() and node not in self._there():
                over.wait(4 * POLL_S)
        return None

    def _judged(self, reply: Letter, asked: Asked) -> Message | None:
        """The answer in a letter that answers this question; None, with a note, for anything else."""
        data = b""
        try:
            if reply.has_error():
                raise IntegrityFault(f"the client failed: {reply.error.reason}")
            if reply.metadata.src_node_id != asked.node:
                raise IntegrityFault("it is from another site")
            data, about = _opened(reply.content)
            if about.get("number") != asked.number or about.get("answers") != digest(asked.data):
                raise IntegrityFault("it answers another question: a message was sent again")
            answer = unpacked(data)
            if answer.round != asked.question.round:
                raise IntegrityFault(f"it is of question {answer.round}, not {asked.question.round}")
        except IntegrityFault as fault:
            self._say(f"the answer of {asked.site} is dropped: {fault}")
            self._note("dropped", asked.site, data, None, why=str(fault))
            return None
        self._note("in", asked.site, data, answer)
        return answer

    def _note(self, direction: str, site: str, data: bytes, message: Message | None, **more: Any) -> None:
        if self._audit is not None:
            self._audit.note(direction, site, data, message, **more)


# ---------------------------------------------------------------------------------------------------------------------


def client_app(
    site: str,
    worker: Answering,
    audit: AuditLog | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    farewell: Callable[[], None] = lambda: None,
) -> ClientApp:
    """The app of a site: `worker` answers, and `farewell` is called when the server will ask no more.

    A fault that the worker does not turn into an answer is told to the server by its kind alone: its sentence may name
    rows of patients, and stays here.
    """
    from flwr.app import Message as Letter
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def answered(question: Message) -> Message:
        if question.kind == WELCOME:
            return Message(WELCOME, question.round, words={"site": site, "program": nsclc_mtl.__version__})
        if question.kind == FAREWELL:
            farewell()
            return Message(FAREWELL, question.round)
        try:
            return worker.answer(question)
        except Exception as wrong:
            say(f"question {question.round} ({question.kind}) is not answered: {type(wrong).__name__}: {wrong}")
            code = wrong.exit_code if isinstance(wrong, Fault) else 1
            sentence = f"{site}: {type(wrong).__name__}; its words are with the site"
            return Message("refused", question.round, words={"sentence": sentence, "code": code})

    @app.query()
    def query(letter: Letter, context: Any) -> Letter:
        data, about = _opened(letter.content)
        question = unpacked(data)
        if audit is not None:
            audit.note("in", site, data, question)
        answer = answered(question)
        back = packed(answer)
        if audit is not None:
            audit.note("out", site, back, answer)
        return Letter(_sealed(_body(back), back, str(about["number"]), digest(data)), reply_to=letter)

    return app


def _body(data: bytes) -> RecordDict:
    """Bytes as one array, which Flower sends in pieces."""
    from flwr.app import Array, ArrayRecord, RecordDict

    return RecordDict({"message": ArrayRecord({"bytes": Array("uint8", (len(data),), "mtl", data)})})


def _sealed(body: RecordDict, data: bytes, number: str, answers: str = "") -> RecordDict:
    from flwr.app import ConfigRecord, RecordDict

    about = ConfigRecord({"sha256": digest(data), "number": number, "answers": answers})
    return RecordDict({"message": body["message"], "about": about})


def _opened(content: RecordDict) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a message and the record about them. Raises IntegrityFault where they do not belong together."""
    try:
        about = dict(content.config_records["about"])
        data = bytes(content.array_records["message"]["bytes"].data)
    except (KeyError, TypeError, AttributeError, ValueError) as wrong:
        raise IntegrityFault("a letter holds no message of mtl: it is from elsewhere") from wrong
    if about.get("sha256") != digest(data):
        raise IntegrityFault("a message is not the one that was sent: its hash differs")
    return data, about


def _gone(reply: Letter) -> bool:
    """Whether Flower says that the node went before it answered."""
    from flwr.common.constant import ErrorCode

    return reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE
