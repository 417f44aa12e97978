"""Who is who in a federation: a server's certificate, a key pair a site, and the server's roster of public keys.

All keys are of the curve P-384. A site proves itself by signing with a private key that never has to leave it: it
makes its own pair (`site_keys`) and sends the public half, of which it tells the fingerprint on the telephone. The
certificate is signed by an authority whose private key is forgotten at once, so that nobody can sign another one with
it; a new certificate is a new authority.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nsclc_mtl.federated.lines import Tls
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

DAYS = 730  # that a certificate holds
CA, CERTIFICATE, SERVER_KEY, ROSTER = "ca.pem", "server.pem", "server.key", "roster.json"
KEY, PUBLIC = "site.key", "site.pub"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def make_keys(folder: Path, hosts: Iterable[str], sites: Iterable[str] = ()) -> dict[str, str]:
    """Makes `folder/server`, and `folder/SITE` for sites that do not make their own keys; fingerprints by site.

    `hosts` are the names or addresses by which sites reach the server. Raises UsageFault where `folder/server` or a
    site's folder is there already.
    """
    sites, hosts = list(sites), list(hosts)
    for name in sites:
        _sound(name)
    for host in hosts:
        _named(host)
    _absent(folder / name for name in ("server", *sites))
    (folder / "server").mkdir(parents=True, mode=0o700)
    _certify(folder / "server", hosts)
    (folder / "server" / ROSTER).write_text("{}\n", encoding="utf-8")
    prints = {}
    for name in sites:
        site_keys(folder, name)
        _create(folder / name / CA, (folder / "server" / CA).read_bytes(), 0o644)
        prints[name] = enrol(folder / "server", name, folder / name / PUBLIC)
    return prints


def site_keys(folder: Path, site: str) -> str:
    """Makes the key pair of a site in `folder/SITE`; the fingerprint of its public key, as `ssh-keygen -lf` tells it.

    Raises UsageFault where the folder is there already.
    """
    from cryptography.hazmat.primitives import serialization as form

    _absent([folder / _sound(site)])
    key = _new_key()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    (folder / site).mkdir(parents=True, mode=0o700)
    _create(folder / site / KEY, secret, 0o600)
    _create(folder / site / PUBLIC, public + f" {site}\n".encode(), 0o644)
    return fingerprint(key.public_key())


def enrol(server: Path, site: str, public: Path) -> str:
    """Writes a site's public key into the roster of the server's folder; its fingerprint, to be compared by telephone.

    Raises UsageFault where the site or the key is enrolled already.
    """
    key = _public(public.read_bytes(), public.name)
    known = _roster(server)
    if _sound(site) in known:
        raise UsageFault(f"site {site} is in the roster already: take it out of {ROSTER} first if its key is replaced")
    told = fingerprint(key)
    if twin := [name for name, entry in known.items() if entry["sha256"] == told]:
        raise UsageFault(f"the key of site {site} is that of {twin[0]}: every site has its own")
    entry = {"key": " ".join(public.read_text(encoding="utf-8").split()[:2]), "sha256": told}
    text = json.dumps(known | {site: entry}, indent=1) + "\n"
    (server / f"{ROSTER}.tmp").write_text(text, encoding="utf-8")
    (server / f"{ROSTER}.tmp").replace(server / ROSTER)
    return told


def advice(folder: Path, prints: Mapping[str, str]) -> list[str]:
    """What goes where, a sentence a line, after keys were made in `folder` for the sites with these fingerprints."""
    said = []
    if (folder / "server").is_dir():
        said.append(f"{folder / 'server'} stays with the server: {SERVER_KEY} is secret, {CA} travels to every site")
    for site, told in sorted(prints.items()):
        own = folder / site
        if (own / CA).is_file():
            said.append(f"{own} travels to {site} by a safe way, for {KEY} is secret, and is then deleted here")
        else:
            said.append(f"{own / KEY} is secret and stays at {site}; {PUBLIC} travels to the server, which enrols it")
            said.append(f"put the server's {CA} into {own}")
        said.append(f"fingerprint of the key of {site}, to be compared by telephone: {told}")
    return said


def roster(server: Path) -> dict[str, EllipticCurvePublicKey]:
    """Public keys by site, as enrolled. Raises DataFault where there are none, IntegrityFault where one was changed."""
    known = _roster(server)
    if not known:
        raise DataFault(f"no site is enrolled in {ROSTER}: mtl federate keys with site=NAME and its public key")
    keys = {site: _public(entry["key"].encode(), site) for site, entry in known.items()}
    for site, key in keys.items():
        if fingerprint(key) != known[site]["sha256"]:
            raise IntegrityFault(f"the key of site {site} in {ROSTER} is not the one that was enrolled")
    return keys


def public_text(server: Path, site: str) -> str:
    """A site's public key from the roster, as OpenSSH writes it."""
    return _roster(server)[site]["key"] + "\n"


def tls(server: Path) -> Tls:
    """The certificate of the server's folder. Raises UsageFault where it is not there or others may read its key."""
    files = Tls(server / CA, server / CERTIFICATE, server / SERVER_KEY)
    for path in (files.ca, files.certificate, files.key):
        if not path.is_file():
            raise UsageFault(f"there is no {path.name} in {server}: make the keys with `mtl federate keys`")
    _own(files.key)
    return files


def site_files(folder: Path) -> tuple[Path, Path]:
    """The authority and the private key in a site's folder. Raises UsageFault as `tls` does."""
    for name in (CA, KEY):
        if not (folder / name).is_file():
            more = " (the server's, which travels to every site)" if name == CA else ""
            raise UsageFault(f"there is no {name}{more} in {folder}: see `mtl federate keys`")
    private_key(folder)  # what is wrong with it is told here rather than by Flower
    return folder / CA, folder / KEY


def private_key(folder: Path) -> EllipticCurvePrivateKey:
    """The private key in a site's folder. Raises UsageFault as `tls` does, DataFault where it does not read as one."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    _own(folder / KEY)
    try:
        key = load_ssh_private_key((folder / KEY).read_bytes(), None)
    except ValueError as wrong:
        raise DataFault(f"{KEY} holds no private key as OpenSSH writes them") from wrong
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataFault(f"{KEY} is not of the curve P-384: make it with `mtl federate keys`")
    return key


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key as OpenSSH writes it."""
    import base64
    import hashlib

    from cryptography.hazmat.primitives import serialization as form

    text = key.public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).split()[1]
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(text)).digest()).decode().rstrip("=")


def as_pem(key: EllipticCurvePublicKey) -> bytes:
    """A public key in the form in which Flower's nodes show it."""
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


# ---------------------------------------------------------------------------------------------------------------------


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


def _certify(folder: Path, hosts: Iterable[str]) -> None:
    """RFC 5280: an authority that may sign nothing but servers' certificates, and the one that it signs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority, key, begins = _new_key(), _new_key(), datetime.now(UTC) - timedelta(hours=1)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mtl federation")])
    identity = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())

    def begun(subject: x509.Name, public: EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=DAYS))

    root = begun(issuer, authority.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    root = root.add_extension(_usage(signs=True), True).add_extension(identity, False)
    _create(folder / CA, root.sign(authority, hashes.SHA384()).public_bytes(form.Encoding.PEM), 0o644)

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mtl federate server")])
    names = [_named(host) for host in dict.fromkeys((*hosts, *_LOOPBACK))]
    leaf = begun(subject, key.public_key()).add_extension(x509.SubjectAlternativeName(names), False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    leaf = leaf.add_extension(_usage(signs=False), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    leaf = leaf.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), False)
    _create(folder / CERTIFICATE, leaf.sign(authority, hashes.SHA384()).public_bytes(form.Encoding.PEM), 0o644)
    _create(
        folder / SERVER_KEY,
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
        0o600,
    )


def _usage(signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _named(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if "/" in host or ":" in host or " " in host or not host.isascii() or not host:
        raise UsageFault(f"'{host}' is no name or address of a server: give it without scheme and port")
    return x509.DNSName(host)


def _public(text: bytes, whose: str) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as wrong:
        raise DataFault(f"{whose} holds no public key as OpenSSH writes them (ecdsa-sha2-nistp384 ...)") from wrong
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise DataFault(f"the public key of {whose} is not of the curve P-384: ssh-keygen -t ecdsa -b 384")
    return key


def _roster(server: Path) -> dict[str, dict[str, str]]:
    path = server / ROSTER
    if not path.is_file():
        raise UsageFault(f"there is no {ROSTER} in {server}: make the keys with `mtl federate keys`")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        entries = {str(site): {"key": entry["key"], "sha256": entry["sha256"]} for site, entry in known.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise DataFault(f"{path.name} does not read as a roster: site -> key and sha256") from wrong
    return entries


def _sound(site: str) -> str:
    if not _NAME.fullmatch(site) or site == "server":
        raise UsageFault(
            f"'{site}' cannot name a site here: letters, digits, '.', '_' and '-', at most 64, and not 'server'"
        )
    return site


def _absent(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.exists():
            raise UsageFault(f"{folder} is there already, and keys are never overwritten: name another folder")


def _create(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _own(key: Path) -> None:
    if os.name == "posix" and key.stat().st_mode & 0o077:
        raise UsageFault(f"others than its owner may read the private key {key}: chmod 600 {key}")
