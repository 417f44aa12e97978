"""A real SuperLink and SuperNodes of Flower on loopback, with TLS and keys: what travels, and who is turned away."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nsclc_mtl.federated import audit, keys
from nsclc_mtl.federated.messages import Message
from nsclc_mtl.records import TryAgain
from tests.federated.toys import same_question

pytestmark = pytest.mark.federated


def lines_of(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def asked(channel, number: int, timeout_s: float = 60.0, kind: str = "train") -> dict[str, Message]:
    x = np.arange(6, dtype="float32").reshape(2, 3) * number
    return channel.ask(same_question(kind, number, ["a", "b"], arrays={"x": x}), timeout_s)


def of_this_folder(folder: Path) -> list[int]:
    """Processes that were started for a federation in this folder (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def test_three_rounds(federation):
    """Answers are those of the sites, also of more bytes than Flower sends in one piece; both sides log the same."""
    large = np.random.default_rng(1).random(900_000)  # 7.2 MB

    def script(channel):
        assert channel.sites() == ["a", "b"]
        got = [asked(channel, number) for number in (1, 2)]
        return [*got, channel.ask(same_question("train", 3, ["a", "b"], arrays={"x": large}), 90.0)]

    got = federation.serve(script, {"a": {"settings": {"add": 1.0}}, "b": {}})
    for number, answers in enumerate(got, start=1):
        x = np.arange(6, dtype="float32").reshape(2, 3) * number if number < 3 else large
        assert sorted(answers) == ["a", "b"]
        np.testing.assert_array_equal(answers["a"].arrays["x"], x + 1)
        np.testing.assert_array_equal(answers["b"].arrays["x"], x)
        assert answers["b"].words["site"] == "b"
        assert answers["b"].round == number
    for hospital in federation.hospitals:
        assert hospital.end() == 0, hospital.said()

    server = federation.folder / "server" / "audit.jsonl"
    number, head = audit.verify(server)
    assert audit.verify(server, head) == (number, head)
    for site in ("a", "b"):
        own = federation.folder / "sites" / site / "audit.jsonl"
        audit.verify(own)
        here = {(line["direction"], line["sha256"]) for line in lines_of(own)}
        there = {(line["direction"], line["sha256"]) for line in lines_of(server) if line["site"] == site}
        there = {one for one in there if one[0] != "lost"}  # an errand that did not arrive was sent again
        assert here == {({"in": "out", "out": "in"}[direction], sha256) for direction, sha256 in there}
    assert of_this_folder(federation.folder) == []


def test_strangers(federation):
    """Plain text, a key that is not enrolled, a certificate of another authority, and all but Fleet: turned away."""
    import httpx

    def script(channel):
        host, _, port = federation.at.rpartition(":")
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://{host}:{port}/v1/fleet/pull-messages", content=b"", timeout=5)
        keys.site_keys(federation.keys, "c")
        keys._create(federation.keys / "c" / keys.CA, (federation.keys / "server" / keys.CA).read_bytes(), 0o644)
        keys.make_keys(federation.folder / "others", ["localhost"], ["a"])
        plain = federation.start("b", plain=True, wait_s=12.0)
        strange = federation.start("c")
        other = federation.start("d", folder=str(federation.folder / "others" / "a"))
        trust = ssl.create_default_context(cafile=str(federation.keys / "server" / keys.CA))
        with httpx.Client(verify=trust, base_url=f"https://{federation.at}", timeout=5) as client:
            for path in ("/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs"):
                assert client.post(path, content=b"").status_code == 404
            assert client.get("/health").status_code == 404
        ended = {name: who.end(60.0) for name, who in (("plain", plain), ("strange", strange), ("other", other))}
        assert channel.sites() == ["a"]
        return ended, plain.said(), strange.said(), other.said(), channel.ask({"a": Message("train", 1)}, 60.0)

    ended, plain, strange, other, answers = federation.serve(script, {"a": {}})
    assert ended == {"plain": 75, "strange": 2, "other": 5}, (plain, strange, other)
    assert "let site b in" in plain
    assert "not enrolled" in strange
    assert "certificate" in other
    assert sorted(answers) == ["a"]
    assert any("not in the roster" in sentence for sentence in federation.said)


def test_sent_again(federation):
    """An answer that came before, and a signed request that came before, are refused."""
    import httpx
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import sign_message
    from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

    def script(channel):
        got = [asked(channel, number) for number in (1, 2)]
        key = keys.private_key(federation.keys / "a")
        stamp = now().isoformat()
        headers = {
            "content-type": PROTOBUF_MEDIA_TYPE,
            "accept": PROTOBUF_MEDIA_TYPE,
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(keys.as_pem(key.public_key())).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(sign_message(key, stamp.encode())).decode(),
        }
        node = next(node for node, site in channel._names.items() if site == "a")
        body = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
        trust = ssl.create_default_context(cafile=str(federation.keys / "server" / keys.CA))
        with httpx.Client(verify=trust, base_url=f"https://{federation.at}", headers=headers) as client:
            codes = [client.post("/v1/fleet/pull-messages", content=body).status_code for _ in range(2)]
        return got, codes

    (first, second), codes = federation.serve(script, {"a": {}, "b": {"replays": True}})
    assert sorted(first) == ["a", "b"]
    assert sorted(second) == ["a"]
    assert codes == [200, 401]
    noted = lines_of(federation.folder / "server" / "audit.jsonl")
    dropped = [line for line in noted if line["direction"] == "dropped" and line["site"] == "b"]
    assert "sent again" in dropped[0]["why"]


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is Linux's")
def test_killed(federation):
    """A client that is killed while it works is done without; one that comes back in time is asked anew."""
    word = federation.folder / "word"

    def when_it_works(then):
        def run():
            while not word.exists():
                time.sleep(0.05)
            word.unlink()
            then()

        threading.Thread(target=run, daemon=True).start()

    def power_cut():
        """Its SuperNode has no time to say that it goes: the server holds it to be there for up to a minute."""
        nodes = of_this_folder(federation.keys / "b")
        federation.hospitals[1].process.send_signal(signal.SIGSTOP)  # it would start another
        for number in nodes:
            os.kill(number, signal.SIGKILL)
        federation.hospitals[1].kill()

    def script(channel):
        when_it_works(power_cut)
        began = time.monotonic()
        first = asked(channel, 1, 15.0)
        took = time.monotonic() - began

        again = federation.start("b", settings={"sleeps": {"3": 300}, "word": str(word)})
        channel.wait_for(["a", "b"], 10.0)  # by its heartbeats it never went
        second = asked(channel, 2, 150.0)

        left = []

        def and_back():
            again.kill()
            deadline = time.monotonic() + 20
            while of_this_folder(federation.keys / "b") and time.monotonic() < deadline:
                time.sleep(0.2)
            left.extend(of_this_folder(federation.keys / "b"))
            federation.start("b")

        when_it_works(and_back)
        third = asked(channel, 3, 90.0)
        return first, took, second, left, third

    sleeping = {"settings": {"sleeps": {"1": 300}, "word": str(word)}}
    first, took, second, left, third = federation.serve(script, {"a": {}, "b": sleeping})
    assert sorted(first) == ["a"]
    assert took < 20
    assert sorted(second) == ["a", "b"]
    assert left == []  # its SuperNode did not outlive it
    assert sorted(third) == ["a", "b"]


def test_plain_late_and_broken(federation):
    """On loopback it can be tried without keys. A late answer is that of no later question; words of a failure that
    was not foreseen stay at the site."""

    def script(channel):
        assert channel.sites() == ["a", "b"]
        return asked(channel, 1, 5.0), asked(channel, 2)

    slow = {"settings": {"sleeps": {"1": 10}, "word": str(federation.folder / "word")}}
    late, answers = federation.serve(script, {"a": slow, "b": {"worker": "toys:Broken"}}, plain=True)
    assert "a" not in late
    assert (answers["a"].kind, answers["a"].round) == ("train", 2)
    assert answers["b"].kind == "refused"
    assert "P0017" not in json.dumps(dict(answers["b"].words))
    assert "P0017" in federation.hospitals[1].said()


def test_nobody_comes(federation):
    with pytest.raises(TryAgain, match="0 of 1 sites came"):
        federation.serve(lambda channel: None, {"a": {"worker": "toys:Nothing"}}, wait_s=3.0)
    assert of_this_folder(federation.folder) == []


def test_server_is_ended(tmp_path):
    """A server that is interrupted leaves no SuperLink behind."""
    pytest.importorskip("flwr")
    keys.make_keys(tmp_path / "keys", ["localhost"], ["a"])
    code = (
        "import sys, pathlib, signal\n"
        "from nsclc_mtl.federated.server import serve\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "serve(lambda channel: None, listen='127.0.0.1:0', sites=['a'], work=folder / 'server',\n"
        "      folder=folder / 'keys' / 'server', opened=lambda at: print('open', flush=True))\n"
    )
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert of_this_folder(tmp_path / "keys") != []
        process.send_signal(number)
        assert process.wait(timeout=40) == status
        process.stdout.close()
        deadline = time.monotonic() + 15
        while of_this_folder(tmp_path / "keys") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert of_this_folder(tmp_path / "keys") == []
