"""Compose, check, build, sweep and the run folder: the only room that knows Hydra and OmegaConf."""

from .allow import build, check, permitted
from .frame import execute
from .resolved import config_hash, plain, to_yaml
from .run import Run
from .wiring import compose

__all__ = ["Run", "build", "check", "compose", "config_hash", "execute", "permitted", "plain", "to_yaml"]
