"""`mtl federate keys`: certificates and keys for a federation, never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig


def show(cfg: DictConfig) -> int:
    """Makes what was asked for, prints what goes where; the exit code."""
    from nsclc_mtl.config import plain
    from nsclc_mtl.federated import keys

    asked = plain(cfg)
    folder, site, public = Path(asked["out"]), asked["site"], asked["enrol"]
    if public:
        if not site:
            raise UsageFault("enrol=FILE needs the name of its site: site=NAME")
        print(f"{site}: {keys.enrol(folder / 'server', str(site), Path(public))}")
        print("compare this fingerprint with the site's by another way, such as the telephone")
        return 0
    if asked["hosts"]:
        prints = keys.make_keys(folder, asked["hosts"], asked["sites"] or ())
    elif site:
        prints = {str(site): keys.site_keys(folder, str(site))}
    else:
        raise UsageFault(
            "say what to make: hosts=[NAME] at the server, site=NAME at a site, or site=NAME enrol=FILE at the server"
        )
    for line in keys.advice(folder, prints):
        print(line)
    return 0
