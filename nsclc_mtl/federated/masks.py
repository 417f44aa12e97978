"""Secure summation: every site hides its numbers under masks that cancel in the sum of all.

Each two sites agree on a secret (X25519) that nobody else has; from it both draw the same stream of numbers (HKDF with
SHA-256, ChaCha20), which one of them adds and the other one takes away. The server gets numbers that look like noise
and, once it has those of all sites, their sum: the state times its patients, and the number of patients. Numbers are
fixed points modulo 2^64, so that the masks cancel to the last bit. This is the pairwise masking of Bonawitz et al. (CCS
2017) without its recovery of sites that drop out: where one is missing the round cannot be opened, and is to be asked
again, under another name, of those who are left.

What it protects against: a server, or whoever reads what it receives, that wants to know what a single site has sent.

What it does not protect against:

* All other sites together with the server: they take their own numbers out of the sum. With two sites each knows the
  other's mean by itself.
* A server that lies about the public keys, and so sits in the middle of every pair. The keys have to be those of a
  roster that the sites have agreed on by another way; that is for the caller to see to.
* A site that sends nonsense. Lengths cannot be compared; only the sum can be judged (`guard.fault_of_sum`).
* What the sum itself tells of patients (that is for differential privacy), and whatever travels beside it: a site's
  metrics, and the number of patients that it told at the beginning.
* Two different states under one name: their difference would be in the open. `about` is best the digest of the whole
  question, and a site that keeps a `Once` answers no name twice with different numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.federated.update import State
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

BITS = 24  # of every number behind the point
N, CHECK = "#n", "#check"  # names of what is summed beside the state
_CHECKS = 2  # words of 64 bits: noise passes for them once in 2^128 rounds
_WORD = b"nsclc_mtl masks 1"


def keys() -> tuple[bytes, bytes]:
    """A new private key and its public one, X25519, 32 bytes each. The private one never leaves its site."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def extra() -> dict[str, np.ndarray]:
    """Form of what is summed beside the state: the number of patients, and what tells that all masks have gone."""
    return {N: np.zeros(1, np.uint64), CHECK: np.zeros(_CHECKS, np.uint64)}


def masked(
    state: State, n: int, site: str, private: bytes, publics: Mapping[str, bytes], about: str
) -> dict[str, np.ndarray]:
    """What a site sends: uint64 in the shapes of the state, and the two of `extra`, all of it under masks.

    Args:
        state: the model as the site has trained it. n: on so many patients. site: its own name. private: its own key.
        publics: key of every site that takes part, its own too. about: what the numbers are for (federation, fold and
            question): one name for one state, and the same for all sites.

    The same arguments give the same bytes. Raises UsageFault for fewer than two sites or a name or key that is not
    among them, IntegrityFault for a key that is none, DataFault for numbers that are not finite or too large to sum.
    """
    if len(publics) < 2:
        raise UsageFault("a sum of fewer than two sites hides nothing: wait for another one, or set secure=false")
    if publics.get(site) != _public(private):
        raise UsageFault(
            f"the roster has another key for the site '{site}' than the one here: give the site's own private key, or "
            "correct the roster"
        )
    if n < 1:
        raise DataFault(f"site '{site}' has trained on {n} patients: it has nothing to add to a sum")
    most = ((1 << 63) - 1) // len(publics)  # so many times it fits into 63 bits
    out = {name: _fixed(name, np.asarray(values), n, most) for name, values in state.items()}
    out |= {N: np.array([n], np.uint64), CHECK: _check(publics, about)}
    sizes = {name: values.size for name, values in sorted(out.items())}
    total = sum(sizes.values())
    mask = np.zeros(total, np.uint64)
    for other in sorted(publics):
        if other == site:
            continue
        if publics[other] == publics[site]:
            raise IntegrityFault(f"the sites '{site}' and '{other}' have one and the same key: each needs its own")
        drawn = _stream(_secret(private, publics[other], other), site, other, publics, about, total)
        mask = mask + drawn if site < other else mask - drawn  # modulo 2^64: what one adds the other takes away
    begin = 0
    for name, size in sizes.items():
        out[name] = np.asarray(out[name] + mask[begin : begin + size].reshape(out[name].shape))
        begin += size
    return out


class Once:
    """What a site has already said under which name, as digests, in a file that outlives the process (or in memory)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._said: dict[str, str] = {}
        if path is not None and path.is_file():
            try:
                self._said = dict(line.split(" ", 1) for line in path.read_text(encoding="ascii").splitlines())
            except ValueError as wrong:
                raise IntegrityFault(
                    f"'{path.name}' does not read as what this site has answered: restore it, or make new keys"
                ) from wrong

    def said(self, about: str, answer: Mapping[str, np.ndarray]) -> None:
        """Notes what `masked` has made, before it is sent. Raises IntegrityFault where the same name had other numbers.

        A training with noise is never the same again, and neither is one whose optimiser has gone on meanwhile.
        """
        name = hashlib.sha256(about.encode()).hexdigest()
        parts = (x for key in sorted(answer) for x in (key.encode(), np.ascontiguousarray(answer[key]).tobytes()))
        digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
        if name not in self._said and self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                file.write(f"{name} {digest}\n")
                file.flush()
                os.fsync(file.fileno())
        if self._said.setdefault(name, digest) != digest:
            raise IntegrityFault(
                "the server asks again what this site has answered with other numbers: both under one mask would show "
                "their difference; it must ask a new question"
            )


def summed(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sum of what the sites have sent, modulo 2^64; their order is nothing. `guard.fault_of_masked` judges the forms.

    Raises DataFault where there is nobody.
    """
    if not parts:
        raise DataFault("no site has sent anything to sum")
    each = [parts[site] for site in sorted(parts)]
    return {name: np.asarray(np.sum([part[name] for part in each], axis=0, dtype=np.uint64)) for name in each[0]}


def unmasked(
    total: Mapping[str, np.ndarray], like: State, publics: Mapping[str, bytes], about: str
) -> tuple[dict[str, np.ndarray], int]:
    """The mean state, weighed by patients, in the types of `like`, and the number of all patients.

    It is `update.mean` to half a step of 2^-24 a site, over the patients. Raises IntegrityFault where the sum cannot be
    opened: a site of `publics` is missing, was added twice, or has masked its numbers for another question or other
    sites.
    """
    if not np.array_equal(total[CHECK], _check(publics, about) * np.uint64(len(publics))):
        raise IntegrityFault(
            f"the sum of {len(publics)} sites does not open: one is missing, or has answered another question; ask "
            "again those that answer"
        )
    n = int(total[N][0])
    if not 1 <= n < 1 << 62:
        raise IntegrityFault("the sum of the sites' patients is no number of patients: a site has sent nonsense")
    return {
        name: np.asarray(total[name].astype(np.int64) / float(1 << BITS) / n).astype(values.dtype)
        for name, values in like.items()
    }, n


def _fixed(name: str, values: np.ndarray, n: int, most: int) -> np.ndarray:
    """n times the numbers as multiples of the step, modulo 2^64. Raises DataFault beyond `most` or if not finite."""
    if not np.isfinite(values).all():
        raise DataFault(f"'{name}' has numbers that are not finite: the training has lost itself")
    with np.errstate(over="ignore"):  # inf is beyond every range
        scaled = np.rint(values.astype(np.float64) * n * float(1 << BITS))
    if scaled.size and float(np.abs(scaled).max()) >= most:
        raise DataFault(
            f"'{name}' is up to {float(np.abs(values).max()):.3g}: times {n} patients that is beyond the "
            f"{most / (1 << BITS):.3g} that a secure sum holds; set secure=false, or scale the model's inputs"
        )
    return np.asarray(scaled.astype(np.int64)).astype(np.uint64)  # two's complement: minus one is 2^64 - 1


def _check(publics: Mapping[str, bytes], about: str) -> np.ndarray:
    """Words that every site of this question adds: their sum is known, and right only where all masks have gone."""
    return np.frombuffer(_digest(b"check", publics, about)[: 8 * _CHECKS], "<u8").astype(np.uint64)


def _digest(purpose: bytes, publics: Mapping[str, bytes], about: str) -> bytes:
    """SHA-256 of who takes part in what: other sites, or another question, have other masks."""
    said = [_WORD, purpose, about.encode(), *(part for s in sorted(publics) for part in (s.encode(), publics[s]))]
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in said)).digest()


def _public(private: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    except (TypeError, ValueError) as wrong:
        raise IntegrityFault("the private key of the secure sum is not one of 32 bytes: make new keys") from wrong


def _secret(private: bytes, public: bytes, other: str) -> bytes:
    """What only the two sites can compute."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except (TypeError, ValueError) as wrong:  # of another length, or one of the few points that everybody can compute
        raise IntegrityFault(
            f"the public key of the site '{other}' is none that can be used: ask it for keys"
        ) from wrong


def _stream(secret: bytes, site: str, other: str, publics: Mapping[str, bytes], about: str, words: int) -> np.ndarray:
    """The pair's numbers for this question, uint64 [words], even over all 64 bits."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    pair = b"".join(publics[name] for name in sorted((site, other)))
    info = _digest(b"mask", publics, about) + pair
    key = HKDF(SHA256(), 32, None, info).derive(secret)
    # a key serves one stream, so that its nonce may be zero
    encrypt: Any = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(encrypt.update(bytes(8 * words)), "<u8").astype(np.uint64)
