"""Where a server is, and what may be offered there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from nsclc_mtl.records import UsageFault


@dataclass(frozen=True)
class Address:
    """Where a server listens, or is reached: `host:port`. Port 0 is a free one."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """The address of such words. Raises UsageFault where they are none."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or "/" in host or not port.isdigit() or int(port) > 65535:
            raise UsageFault(f"'{text}' is no address: give host:port, such as federation.example.org:9092")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def loopback(self) -> bool:
        """Whether only this machine can be meant."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def unprotected(address: Address, folder: Path | None, plain: bool) -> bool:
    """Whether the federation is without TLS and keys. Raises UsageFault where it may not be, or the words disagree."""
    if folder is not None:
        if plain:
            raise UsageFault("keys are given and plain=true as well: leave one of them out")
        return False
    if not plain:
        raise UsageFault("a federation needs keys: make them with `mtl federate keys` (plain=true tries on loopback)")
    if not address.loopback():
        raise UsageFault(f"plain=true is for trials on loopback, and {address.host} is not: make keys for it")
    return True
