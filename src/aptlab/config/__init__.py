"""Configuration: composed by Hydra, checked without torch, built through one door.

This package alone imports Hydra and OmegaConf, and only when something is composed or built. What it reads from source
(`config.static`) is its own affair: others take `read_signature` and its like from here.
"""

from aptlab.config.building import build
from aptlab.config.checking import check
from aptlab.config.composing import Config, compose
from aptlab.config.escaped import escape_text, escape_values, refuse_interpolations
from aptlab.config.fallback import Fallback, find_missing_nodes
from aptlab.config.inspecting import build_known_rule, inspect_inputs
from aptlab.config.node_path import locate_error
from aptlab.config.renamed import find_new_target, find_new_word, translate_overrides
from aptlab.config.requests import fill_request, read_root_keys
from aptlab.config.search_path import find_conf_dir
from aptlab.config.shortcuts import expand_shortcuts
from aptlab.config.static.kinds import derives_from
from aptlab.config.static.signatures import Parameter, Signature, read_signature
from aptlab.config.static.source import read_module_docstring
from aptlab.config.static.types import find_annotation_problem, list_parameter_values
from aptlab.redact import redact_overrides, redact_text, redact_value

__all__ = [
    "Config",
    "Fallback",
    "Parameter",
    "Signature",
    "build",
    "build_known_rule",
    "check",
    "compose",
    "derives_from",
    "escape_text",
    "escape_values",
    "expand_shortcuts",
    "fill_request",
    "find_annotation_problem",
    "find_conf_dir",
    "find_missing_nodes",
    "find_new_target",
    "find_new_word",
    "inspect_inputs",
    "list_parameter_values",
    "locate_error",
    "read_module_docstring",
    "read_root_keys",
    "read_signature",
    "redact_overrides",
    "redact_text",
    "redact_value",
    "refuse_interpolations",
    "translate_overrides",
]
