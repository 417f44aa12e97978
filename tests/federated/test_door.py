"""What the door before a SuperLink lets through, and that it lets it through once."""

from __future__ import annotations

import asyncio
import base64
import ssl

import pytest

from nsclc_mtl.federated import door as doors
from nsclc_mtl.federated import keys
from nsclc_mtl.federated.door import Door
from nsclc_mtl.records import TryAgain

httpx = pytest.importorskip("httpx", reason="the extra `federated` is not installed")

KEYS = {"a": b"-----BEGIN PUBLIC KEY-----\na\n", "b": b"-----BEGIN PUBLIC KEY-----\nb\n"}
PULL = "/v1/fleet/pull-messages"


def knock(door: Door, path: str = PULL, body: bytes = b"x", method: str = "POST", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as client:
            return await client.request(method, path, content=body, headers=named)

    return asyncio.run(sent())


def key(site: str) -> str:
    return base64.b64encode(KEYS[site]).decode()


@pytest.fixture
def inside():
    """A door, and the requests that came through it."""
    came = []

    def superlink(request):
        came.append(request)
        return httpx.Response(200, content=b"answer", headers={"content-type": "application/protobuf", "flwr-x": "y"})

    told = []
    door = Door("http://inside", None, KEYS.values(), told.append)
    door._client = httpx.AsyncClient(base_url="http://inside", transport=httpx.MockTransport(superlink))
    return door, came, told


def test_site_of_the_roster_passes(inside):
    door, came, told = inside
    reply = knock(door, flwr_public_key=key("a"), flwr_signature="s1", cookie="c", content_type="application/protobuf")
    assert (reply.status_code, reply.content, reply.headers["flwr-x"]) == (200, b"answer", "y")
    assert (came[0].url.path, came[0].content) == (PULL, b"x")
    assert came[0].headers["flwr-public-key"] == key("a")
    assert "cookie" not in came[0].headers
    assert told == []


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/control/register-node", "POST"),
        ("/v1/control/start-run", "POST"),
        ("/v1/runtime/acquire-task", "POST"),
        ("/v1/fleet/register-node", "POST"),
        ("/v1/fleet/unregister-node", "POST"),
        ("/v1/fleet/../control/start-run", "POST"),
        ("/v1/fleet/pull-messages/", "POST"),
        (PULL, "GET"),
        ("/health", "GET"),
        ("/docs", "GET"),
    ],
)
def test_nothing_but_what_a_site_asks(inside, path, method):
    door, came, _ = inside
    assert knock(door, path, method=method, flwr_public_key=key("a"), flwr_signature="s").status_code == 404
    assert came == []


def test_strangers_are_turned_away_and_told_of_once(inside):
    door, came, told = inside
    other = base64.b64encode(b"other").decode()
    for _ in range(3):
        assert knock(door, flwr_public_key=other, flwr_signature="s").status_code == 401
    assert knock(door, flwr_public_key=key("a")).status_code == 401
    assert came == []
    assert len(told) == 2
    assert "not in the roster" in told[0]


def test_signed_request_passes_once(inside, monkeypatch):
    door, came, _ = inside
    clock = [0.0]
    monkeypatch.setattr(doors.time, "monotonic", lambda: clock[0])
    codes = [knock(door, flwr_public_key=key("a"), flwr_signature=s).status_code for s in ("s1", "s2", "s1")]
    assert codes == [200, 200, 401]
    clock[0] = doors.MEMORY_S - 1
    assert knock(door, flwr_public_key=key("a"), flwr_signature="s1").status_code == 401
    clock[0] = doors.MEMORY_S + 1
    knock(door, flwr_public_key=key("a"), flwr_signature="s3")
    assert list(door._seen) == ["s3"]
    assert len(came) == 3


def test_signature_is_known_for_longer_than_flower_takes_it():
    constant = pytest.importorskip("flwr.common.constant")
    assert constant.TIMESTAMP_TOLERANCE + 2 * constant.SYSTEM_TIME_TOLERANCE < doors.MEMORY_S
    router = pytest.importorskip("flwr.superlink.routers.fleet.router").router
    assert {f"/v1/fleet/{name}" for name in doors._ASKED + doors._OF_ANYBODY} == {route.path for route in router.routes}
    assert doors.LIMIT > 2 * constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE


def test_too_much_is_turned_away(inside, monkeypatch):
    door, came, _ = inside
    monkeypatch.setattr(doors, "LIMIT", 10)
    assert knock(door, body=b"x" * 11, flwr_public_key=key("a"), flwr_signature="s").status_code == 413
    assert came == []


def test_superlink_that_is_gone_is_worth_another_try(inside):
    door, _, _ = inside

    def gone(request):
        raise httpx.ConnectError("no")

    door._client = httpx.AsyncClient(base_url="http://inside", transport=httpx.MockTransport(gone))
    assert knock(door, flwr_public_key=key("a"), flwr_signature="s").status_code == 503


def test_without_keys_a_site_may_make_itself_known(inside):
    door = Door("http://inside", None, None)
    door._client = inside[0]._client
    assert knock(door, "/v1/fleet/register-node").status_code == 200
    assert knock(door, "/v1/control/register-node").status_code == 404


def test_door_stands_open_with_tls_alone(tmp_path):
    pytest.importorskip("uvicorn")
    keys.make_keys(tmp_path, ["localhost"])
    trust = ssl.create_default_context(cafile=str(tmp_path / "server" / "ca.pem"))
    door = Door("http://inside", None, [])
    with doors.standing_open(door, "127.0.0.1", 0, keys.tls(tmp_path / "server")) as port:
        assert httpx.post(f"https://127.0.0.1:{port}{PULL}", verify=trust, trust_env=False).status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://127.0.0.1:{port}{PULL}", trust_env=False)
        with (
            pytest.raises(TryAgain, match="cannot be listened on"),
            doors.standing_open(Door("http://inside", None, []), "127.0.0.1", port, None),
        ):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"https://127.0.0.1:{port}{PULL}", verify=trust, trust_env=False)
