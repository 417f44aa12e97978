"""Nobody sees anything without the token, by another name, or from another page."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("path", ["/", "/api/worklist", "/static/base.css", "/nothing"])
def test_without_the_token_there_is_nothing(stranger: TestClient, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "mtl=wrong"}):
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("headers", [{"host": "evil.com"}, {"origin": "http://evil.com"}, {"origin": "null"}])
def test_other_hosts_and_origins_are_refused(client: TestClient, method: str, headers: dict[str, str]) -> None:
    assert client.request(method, "/api/worklist", headers=headers).status_code == 403


def test_the_printed_address_leads_in_once_and_leaves_no_token_behind(stranger: TestClient) -> None:
    guard = stranger.app.user_middleware[0].kwargs["guard"]  # type: ignore[attr-defined]
    answer = stranger.get(f"/patient?id=P0001&token={guard.token}", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/patient?id=P0001"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert stranger.get("/api/worklist").status_code == 200
