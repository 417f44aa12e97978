"""A federation on loopback: a server in this process, a hospital a process, all ended with the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl.federated import keys, server
from nsclc_mtl.federated.address import Address
from nsclc_mtl.federated.audit import AuditLog

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Hospital:
    """A process that runs `hospital.py`, with what it says in `log`."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("spec*.json")))
        path, self.log = folder / f"spec{number}.json", folder / f"log{number}.txt"
        path.write_text(json.dumps({"work": str(folder), "wait_s": 120.0, "settings": {}, **spec}))
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "hospital.py"), str(path)], stdout=file, stderr=file, env=environment
            )

    def kill(self) -> None:
        """As the machine's power would."""
        self.process.kill()
        self.process.wait()

    def end(self, timeout_s: float = 30.0) -> int:
        """Exit code of a process that ends by itself, or is asked to."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.process.returncode

    def said(self) -> str:
        return self.log.read_text()


class Federation:
    """Keys in `keys`, what the server leaves in `server`, what a hospital leaves in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys, self.at = folder, folder / "keys", ""
        self.hospitals: list[Hospital] = []
        self.said: list[str] = []

    def start(self, site: str, worker: str = "toys:Echo", plain: bool = False, **more: Any) -> Hospital:
        """A hospital of the federation that is open."""
        folder = None if plain else str(self.keys / site)
        spec = {"site": site, "server": self.at, "folder": folder, "worker": worker, **more}
        self.hospitals.append(Hospital(spec, self.folder / "sites" / site))
        return self.hospitals[-1]

    def serve(self, script: Callable[[Any], Any], sites: Mapping[str, Mapping[str, Any]], **more: Any) -> Any:
        """What the script makes of the channel to these sites; their words are those of `start`."""
        plain = bool(more.get("plain"))
        if not plain and not self.keys.exists():
            keys.make_keys(self.keys, ["localhost"], sites)

        def opened(at: Address) -> None:
            self.at = str(at)
            for site, words in sites.items():
                self.start(site, plain=plain, **words)

        given = {"listen": "127.0.0.1:0", "wait_s": 90.0, "folder": None if plain else self.keys / "server", **more}
        return server.serve(
            script,
            sites=list(sites),
            work=self.folder / "server",
            audit=AuditLog(self.folder / "server" / "audit.jsonl"),
            say=self.said.append,
            opened=opened,
            **given,
        )


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """A federation that is yet to be opened."""
    pytest.importorskip("flwr", reason="the extra `federated` is not installed")
    made = Federation(tmp_path)
    try:
        yield made
    finally:
        for hospital in made.hospitals:
            if hospital.process.poll() is None:
                hospital.process.terminate()
        deadline = time.monotonic() + 20
        for hospital in made.hospitals:
            hospital.end(max(0.1, deadline - time.monotonic()))
