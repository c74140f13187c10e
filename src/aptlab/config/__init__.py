"""Configuration: composed by Hydra, checked without torch, built through one door.

This package alone imports Hydra and OmegaConf, and only when something is composed or built.
"""

from aptlab.config.building import build
from aptlab.config.checking import check
from aptlab.config.composing import Config, compose
from aptlab.config.node_path import locate_error
from aptlab.config.search_path import find_conf_dir
from aptlab.redact import redact_overrides, redact_text, redact_value

__all__ = [
    "Config",
    "build",
    "check",
    "compose",
    "find_conf_dir",
    "locate_error",
    "redact_overrides",
    "redact_text",
    "redact_value",
]
