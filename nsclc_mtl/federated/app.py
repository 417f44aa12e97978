"""The two apps that Flower runs: the server's script, and a site that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nsclc_mtl
from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.federated.inside import Answering
from nsclc_mtl.federated.letters import FAREWELL, WELCOME, body_of, opened, sealed
from nsclc_mtl.federated.messages import Message, digest, packed, unpacked
from nsclc_mtl.records import Fault

if TYPE_CHECKING:
    from flwr.app import Message as Letter
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp


def server_app(script: Callable[[], None]) -> ServerApp:
    """The server's script as Flower's ServerApp."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        script()

    return app


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
        data, about = opened(letter.content)
        question = unpacked(data)
        if audit is not None:
            audit.note("in", site, data, question)
        answer = answered(question)
        back = packed(answer)
        if audit is not None:
            audit.note("out", site, back, answer)
        return Letter(sealed(body_of(back), back, str(about["number"]), digest(data)), reply_to=letter)

    return app
