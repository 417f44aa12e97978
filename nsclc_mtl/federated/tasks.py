"""Work that Flower has to give out, done in this process: the server's script, and the answers of a site.

Flower 1.42 with `--isolation process` starts no program for an app. It lists a task and waits for whoever proves to
know its secret to take it and to give signs of life. A SuperNode makes a task of every question and takes the next one
when it is answered. Its usual program would be started, and load the libraries, for every single question, and run the
code of the server's bundle; here one process at the site answers all of them with what is installed there. Whoever
dies with a task does no harm: Flower gives it up a minute later, and the server asks anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import TryAgain

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.supercore.retry import RetryInvoker
    from flwr.supercore.runtime import RuntimeHttpClient

POLL_S = 0.2
RETRY_S = 20.0  # for how long a program on loopback that does not answer is asked again
_TAKE = "/flwr.proto.Runtime/AcquireTask"


def runtime(address: str, ca: Path | None, token: str | None, secret: bytes | None = None) -> RuntimeHttpClient:
    """A client of the Runtime interface at `address` of loopback: by the token of a task, or to take one."""
    from flwr.supercore.interceptors import (
        RuntimeTokenHttpInterceptor,
        RuntimeVersionHttpInterceptor,
        SuperExecAuthHttpInterceptor,
    )
    from flwr.supercore.runtime import RuntimeHttpClient

    proofs: list[Any] = [RuntimeVersionHttpInterceptor(component_name="mtl")]
    if token is not None:
        proofs.append(RuntimeTokenHttpInterceptor(token))
    if secret is not None:
        proofs.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({_TAKE})))
    trust = None if ca is None else ca.read_bytes()
    return RuntimeHttpClient.from_server_address(address, ca is None, trust, proofs, retry_invoker=_patient())


@contextlib.contextmanager
def server_grid(address: str, ca: Path | None, secret: bytes, run: int, timeout_s: float = 30.0) -> Iterator[Any]:
    """(grid, context) of the run `run`, whose script this process is meanwhile."""
    from flwr.common.constant import SubStatus
    from flwr.common.serde import context_from_proto, run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    token = _taken_in_time(address, ca, secret, TaskType.SERVER_APP, run, timeout_s)
    grid = HttpGrid(address, ca is None, None if ca is None else ca.read_bytes(), token=token)
    grid._retry_invoker = _patient()  # its own would try for ever
    client = grid._runtime_client
    ended = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="the script did not end")
    with beating(client):
        try:
            given = client.PullTaskInput(PullTaskInputRequest())
            context = context_from_proto(given.context)
            TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, run, context.node_id
            grid.set_run(run_from_proto(given.run))
            yield grid, context
            ended = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED)
        finally:
            with contextlib.suppress(Exception):  # the SuperLink may be what failed, and is ended next
                client.PushTaskOutput(ended)
    grid.close()


class Questions:
    """The questions that the SuperNode at `address` has for this site, answered by `app` one after the other."""

    def __init__(self, address: str, secret: bytes, app: ClientApp) -> None:
        self._address, self._app = address, app
        self._client = runtime(address, None, None, secret)

    def answer_next(self) -> bool:
        """Answers a question; False where there is none now."""
        from flwr.app import Error
        from flwr.app import Message as Letter
        from flwr.common.constant import ErrorCode, SubStatus
        from flwr.supercore.constant import TaskType
        from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

        token, _ = _taken(self._client, TaskType.CLIENT_APP)
        if not token:
            return False
        client = runtime(self._address, None, token)
        context: Context | None = None
        try:
            with beating(client):
                letter, context, _, _ = pull_task_input(client)
                try:
                    reply = self._app(letter, context)
                except Exception as wrong:  # not a question of ours: whoever sent it learns that, and nothing else
                    reason = type(wrong).__name__
                    reply = Letter(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=letter)
                push_message(client, reply, context)
                push_task_output(client, context, SubStatus.COMPLETED, "")
        finally:
            client.close()
        return True

    def close(self) -> None:
        """Lets go of the connection."""
        self._client.close()


@contextlib.contextmanager
def beating(client: RuntimeHttpClient) -> Iterator[None]:
    """Signs of life of a task, from a thread."""
    import httpx
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
    from flwr.supercore.heartbeat import HeartbeatSender

    def beat() -> bool:
        try:
            return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
        except httpx.HTTPError:
            return False

    heart = HeartbeatSender(beat)
    heart.start()
    try:
        yield
    finally:
        if heart.is_running:
            heart.stop()


def _taken(client: RuntimeHttpClient, kind: Any) -> tuple[str, int]:
    from flwr.proto.runtime_pb2 import AcquireTaskRequest

    found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return found.token, found.task.run_id


def _taken_in_time(address: str, ca: Path | None, secret: bytes, kind: Any, run: int, timeout_s: float) -> str:
    client = runtime(address, ca, None, secret)
    try:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            token, of = _taken(client, kind)
            if token and of == run:
                return token
            time.sleep(POLL_S)
    finally:
        client.close()
    raise TryAgain(f"the SuperLink did not begin the run within {timeout_s:.0f} s: repeat the command")


def _patient() -> RetryInvoker:
    """Asks again where a program on loopback does not answer, and gives up in the end."""
    import httpx
    from flwr.supercore.retry import RetryInvoker
    from flwr.supercore.retry.retry_invoker import exponential

    return RetryInvoker(
        lambda: exponential(base_delay=0.2, max_delay=2),
        httpx.TransportError,
        max_tries=None,
        max_time=RETRY_S,
    )
