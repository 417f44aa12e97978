"""Keys of a federation: who may read them, what they prove, and that none is overwritten."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess

import pytest

from nsclc_mtl.federated import keys
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

pytest.importorskip("cryptography", reason="the extra `federated` is not installed")


@pytest.fixture
def made(tmp_path):
    keys.make_keys(tmp_path / "keys", ["hub.example.org", "192.0.2.7"], ["a", "b"])
    return tmp_path / "keys"


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    left = [here, there]
    for _ in range(10):
        for side in list(left):
            try:
                side.do_handshake()
                left.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not left


def test_what_lies_where(made):
    assert {str(path.relative_to(made)) for path in made.rglob("*.*")} == {
        *(f"server/{name}" for name in ("ca.pem", "server.pem", "server.key", "roster.json")),
        *(f"{site}/{name}" for site in "ab" for name in ("ca.pem", "site.key", "site.pub")),
    }
    for path in (made / "server" / "server.key", made / "a" / "site.key", made / "b" / "site.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in (made / "server" / "ca.pem").read_text() + (made / "server" / "roster.json").read_text()


@pytest.mark.parametrize("name", ["hub.example.org", "192.0.2.7", "localhost", "127.0.0.1"])
def test_certificate_holds_for_its_names(made, name):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = keys.tls(made / "server")
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=str(made / "a" / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by default
    handshake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "elsewhere.example.org")


def test_certificate_of_another_authority_is_refused(made, tmp_path):
    keys.make_keys(tmp_path / "others", ["localhost"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = keys.tls(tmp_path / "others" / "server")
    server.load_cert_chain(files.certificate, files.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ssl.create_default_context(cafile=str(made / "a" / "ca.pem")), "localhost")


def test_nothing_is_overwritten(made):
    before = (made / "server" / "server.key").read_bytes()
    with pytest.raises(UsageFault, match="there already"):
        keys.make_keys(made, ["localhost"], ["c"])
    assert not (made / "c").exists()
    with pytest.raises(UsageFault, match="there already"):
        keys.site_keys(made, "a")
    assert (made / "server" / "server.key").read_bytes() == before


def test_site_makes_its_own_pair(made, tmp_path):
    """Only the public key travels; both ends read the same fingerprint, and so does OpenSSH."""
    told = keys.site_keys(tmp_path / "hospital", "c")
    public = tmp_path / "hospital" / "c" / "site.pub"
    assert keys.enrol(made / "server", "c", public) == told
    assert sorted(keys.roster(made / "server")) == ["a", "b", "c"]
    private = keys.private_key(tmp_path / "hospital" / "c")
    assert keys.as_pem(keys.roster(made / "server")["c"]) == keys.as_pem(private.public_key())
    with pytest.raises(UsageFault, match="which travels to every site"):
        keys.site_files(tmp_path / "hospital" / "c")
    if shutil.which("ssh-keygen"):
        assert told in subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout


def test_advice_says_what_travels(made, tmp_path):
    prints = {site: keys.fingerprint(key) for site, key in keys.roster(made / "server").items()}
    told = "\n".join(keys.advice(made, prints))
    assert f"{made / 'a'} travels to a by a safe way" in told
    assert prints["b"] in told
    own = keys.site_keys(tmp_path / "hospital", "c")
    told = "\n".join(keys.advice(tmp_path / "hospital", {"c": own}))
    assert "site.key is secret and stays at c" in told
    assert own in told
    assert "server.key" not in told


def test_roster_is_judged(made, tmp_path):
    with pytest.raises(UsageFault, match="in the roster already"):
        keys.enrol(made / "server", "a", made / "b" / "site.pub")
    with pytest.raises(UsageFault, match="is that of a"):
        keys.enrol(made / "server", "c", made / "a" / "site.pub")
    (tmp_path / "x.pub").write_text("ssh-rsa nothing")
    with pytest.raises(DataFault, match="no public key"):
        keys.enrol(made / "server", "c", tmp_path / "x.pub")
    path = made / "server" / "roster.json"
    known = json.loads(path.read_text())
    known["a"]["key"] = known["b"]["key"]
    path.write_text(json.dumps(known))
    with pytest.raises(IntegrityFault, match="site a"):
        keys.roster(made / "server")
    path.write_text("{}")
    with pytest.raises(DataFault, match="no site is enrolled"):
        keys.roster(made / "server")


def test_other_curves_are_refused(made, tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "c.pub").write_bytes(key.public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH))
    with pytest.raises(DataFault, match="P-384"):
        keys.enrol(made / "server", "c", tmp_path / "c.pub")


def test_private_key_that_others_read_is_refused(made):
    (made / "a" / "site.key").chmod(0o640)
    with pytest.raises(UsageFault, match="chmod 600"):
        keys.site_files(made / "a")
    (made / "server" / "server.key").chmod(0o604)
    with pytest.raises(UsageFault, match="chmod 600"):
        keys.tls(made / "server")


@pytest.mark.parametrize("name", ["", "..", "a/b", "server", "-x", "a b", "x" * 65])
def test_names_of_sites_are_names_of_folders(tmp_path, name):
    with pytest.raises(UsageFault, match="cannot name a site"):
        keys.make_keys(tmp_path / "keys", ["localhost"], [name])
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("host", ["https://x", "x:9092", "", "x y"])
def test_hosts_are_names_or_addresses(tmp_path, host):
    with pytest.raises(UsageFault, match="without scheme and port"):
        keys.make_keys(tmp_path / "keys", [host])
    assert not (tmp_path / "keys").exists()
