"""A site in a process of its own: `python hospital.py SPEC.json`.

SPEC: site, server, folder (null: plain), work, worker (module:class, called with the site and `settings`), settings,
wait_s, and `replays`: whether every letter after the first that answers a question is that first one.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from nsclc_mtl.federated import client
from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.records import Fault


def main(spec: dict[str, Any]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    module, _, name = spec["worker"].partition(":")
    worker = getattr(importlib.import_module(module), name)(spec["site"], **spec["settings"])
    if spec.get("replays"):
        _replay()
    work = Path(spec["work"])
    try:
        client.join(
            worker,
            site=spec["site"],
            server=spec["server"],
            work=work,
            folder=Path(spec["folder"]) if spec["folder"] else None,
            plain=not spec["folder"],
            wait_s=spec["wait_s"],
            audit=AuditLog(work / "audit.jsonl"),
            say=lambda sentence: print(sentence, flush=True),
        )
    except Fault as fault:
        print(f"error: {fault}", flush=True)
        return fault.exit_code
    print("farewell", flush=True)
    return 0


def _replay() -> None:
    from nsclc_mtl.federated import app as apps

    honest = apps.client_app

    def dishonest(*args: Any) -> Any:
        app, kept = honest(*args), []

        def answer(letter: Any, context: Any) -> Any:
            from flwr.app import Message as Letter

            reply = app(letter, context)
            if letter.metadata.group_id == "0":
                return reply
            kept.append(reply.content)
            return Letter(kept[0], reply_to=letter)

        return answer

    apps.client_app = dishonest


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
