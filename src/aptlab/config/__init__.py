"""Configuration: composed by Hydra, checked without torch, built through one door.

This package alone imports Hydra and OmegaConf, and only when something is composed or built.
"""

from aptlab.config.building import build
from aptlab.config.checking import check
from aptlab.config.composing import Config, compose
from aptlab.config.places import conf_dir
from aptlab.redact import redact, redact_overrides, redact_text

__all__ = ["Config", "build", "check", "compose", "conf_dir", "redact", "redact_overrides", "redact_text"]
