"""What kind of value each key of a config.json has. A file may hold anything; here it is told what does not belong.

Keys are those that most layouts have; a layout's own name for one is looked up. Keys that aptlab does not read are not
judged, and neither are those of the rope, which every rule reads itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.models.hf.family import FAMILIES
from aptlab.shown import show_line

MOST_LAYERS = 4096  # the largest model of today has 126; rules are asked layer by layer before weights are read
MOST_TOKENS = 1 << 48
LONGEST = 600  # characters of a message; a value may have millions


class Kind(NamedTuple):
    """A kind of value: its words in a message, whether a value is of it, and whether null may stand there."""

    words: str
    holds: Callable[[Any], bool]
    null: bool = True


def is_whole(value: Any, low: int = 0, high: int = MOST_TOKENS) -> bool:
    """Whether a value is a whole number in a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of more digits than a float has
        return False


def is_flag(value: Any) -> bool:
    """Whether a value is true or false, or a small number that stands for them, as in files of Llama 4."""
    return isinstance(value, bool) or is_whole(value)


def is_list_of(value: Any, holds: Callable[[Any], bool], most: int = MOST_LAYERS) -> bool:
    """Whether a value is a list of one kind."""
    return isinstance(value, list) and len(value) <= most and all(map(holds, value))


def is_id(value: Any) -> bool:
    """Whether a value is the id of a token, or several; -1 stands for none in older files."""
    return is_whole(value, -1) or is_list_of(value, lambda item: is_whole(item, -1))


SIZE = Kind("a whole number of 1 or more", lambda value: is_whole(value, 1), null=False)
SHARED = Kind("a whole number of 1 or more, or null", lambda value: is_whole(value, 1))
DEPTH = Kind(f"a whole number from 1 to {MOST_LAYERS}", lambda value: is_whole(value, 1, MOST_LAYERS), null=False)
COUNT = Kind("a whole number", is_whole)
NUMBER = Kind("a finite number", is_finite, null=False)
POSITIVE = Kind("a finite number above 0", lambda value: is_finite(value) and value > 0, null=False)
CAP = Kind("a finite number above 0, or null", POSITIVE.holds)
FLAG = Kind("true or false", is_flag)
WORD = Kind("a word", lambda value: isinstance(value, str))
WORDS = Kind("a list of words", lambda value: is_list_of(value, lambda item: isinstance(item, str)))
FLAGS = Kind("a list of 0 and 1", lambda value: is_list_of(value, is_flag))
IDS = Kind("the id of a token, or a list of ids", is_id)
OBJECT = Kind("an object", lambda value: isinstance(value, Mapping))

KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"), SIZE),
    **dict.fromkeys(("intermediate_size_mlp", "num_key_value_heads", "head_dim", "max_position_embeddings"), SHARED),
    "num_hidden_layers": DEPTH,
    **dict.fromkeys(("sliding_window", "max_window_layers", "sliding_window_pattern"), COUNT),
    **dict.fromkeys(("no_rope_layer_interval", "attention_chunk_size"), COUNT),
    **dict.fromkeys(("rms_norm_eps", "query_pre_attn_scalar", "logits_scaling", "attention_multiplier"), POSITIVE),
    **dict.fromkeys(("floor_scale", "swiglu_limit"), POSITIVE),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "attn_scale", "swiglu_alpha"), NUMBER),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "logit_scale"), CAP),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"), NUMBER._replace(null=True)),
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "attention_out_bias", "mlp_bias", "qk_norm"), FLAG),
    **dict.fromkeys(("use_qk_norm", "use_sliding_window", "use_parallel_residual", "attn_temperature_tuning"), FLAG),
    "use_bidirectional_attention": Kind(
        "true, false or a word", lambda value: is_flag(value) or isinstance(value, str)
    ),
    **dict.fromkeys(("model_type", "hidden_act", "hidden_activation", "position_embedding_type"), WORD),
    "layer_types": WORDS,
    "no_rope_layers": FLAGS,
    "eos_token_id": IDS,
    "bos_token_id": IDS,
    "pad_token_id": IDS,
    "text_config": OBJECT,
}


def check_kinds(config: Mapping[str, Any]) -> None:
    """ConfigError naming the first key whose value is of another kind than the key."""
    family = FAMILIES.get(str(config.get("model_type")))
    names = dict(family.keys) if family is not None else {}
    if family is not None and family.bias_key:
        names.setdefault(family.bias_key, "mlp_bias")
    for key, value in config.items():
        kind = KINDS.get(names.get(key, key))
        if kind is None or (value is None and kind.null) or (value is not None and kind.holds(value)):
            continue
        raise ConfigError(f"{key}={shorten_value(value)} in config.json is not {kind.words}; repair the file")


def shorten_value(value: Any) -> str:
    """A value for a message: one line of at most 60 characters."""
    text = show_line(repr(value))
    return text if len(text) <= 60 else text[:59] + "…"


@contextlib.contextmanager
def name_config(path: Path) -> Iterator[None]:
    """What goes wrong inside is told in one line that names the file, whatever a value is made of."""
    try:
        yield
    except AptlabError as error:
        text = show_line(error)
        text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
        raise type(error)(text if path.name in text else f"{path}: {text}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = show_line(f"{type(error).__name__}: {error}")[:LONGEST]
        raise CheckpointError(f"{path} cannot be read: {reason}; repair the file") from error
