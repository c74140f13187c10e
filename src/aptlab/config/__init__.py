"""Configuration: composed by Hydra, checked without torch, built through one door.

This package alone imports Hydra and OmegaConf, and only when something is composed or built.
"""

from aptlab.config.building import build
from aptlab.config.checking import check
from aptlab.config.composing import Config, compose
from aptlab.config.renamed import find_new_word, translate_overrides
from aptlab.config.search_path import find_conf_dir
from aptlab.config.shortcuts import expand_shortcuts
from aptlab.redact import redact_overrides, redact_text, redact_value

__all__ = [
    "Config",
    "build",
    "check",
    "compose",
    "expand_shortcuts",
    "find_conf_dir",
    "find_new_word",
    "redact_overrides",
    "redact_text",
    "redact_value",
    "translate_overrides",
]
