"""Tokenizers as Hugging Face files. No tokenizer library is needed to write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aptlab.errors import ConfigError

BYTES = 256
EOS = "<eos>"
CONFIG = "tokenizer_config.json"
KEPT = (CONFIG, "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def build_tokenizer_files(state: Mapping[str, str], *, longest: int) -> dict[str, str]:
    """The texts of tokenizer.json and the files that stand with it, for the tokenizer of a checkpoint.

    An imported tokenizer keeps its files as they were, but for a limit that is not `longest`, the length that the model
    is made for. In the files of others a special token typed in a text is split like any other text
    (`split_special_tokens`), as in training.
    """
    kind = state.get("kind")
    if kind not in ("bytes", "json"):
        raise ConfigError(f"a tokenizer of kind {kind!r} cannot be exported to format=hf; allowed: bytes, json")
    text = build_bytes_tokenizer() if kind == "bytes" else state["json"]
    files = json.loads(state.get("files", "{}"))
    kept = {name: files[name] for name in KEPT if name in files}  # no other names: a checkpoint may hold any
    eos = EOS if kind == "bytes" else state.get("eos")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({"bos_token": state["bos"]} if "bos" in state else {}),
        "eos_token": eos,
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    own = {"tokenizer.json": text, CONFIG: json.dumps(settings, indent=2) + "\n"}
    if CONFIG in kept:
        kept[CONFIG] = replace_limit(replace_eos(kept[CONFIG], eos), longest)
    return {**own, **kept}


def replace_eos(config: str, eos: str | None) -> str:
    """A tokenizer_config.json with another end of text, as it is where that is the same."""
    settings = json.loads(config)
    now = settings.get("eos_token")
    if eos in (None, now, now.get("content") if isinstance(now, dict) else now):
        return config
    return json.dumps({**settings, "eos_token": eos}, indent=2, ensure_ascii=False) + "\n"


def replace_limit(config: str, longest: int) -> str:
    """A tokenizer_config.json with another model_max_length, as it is where that is the same or none."""
    settings = json.loads(config)
    if settings.get("model_max_length") in (None, longest):
        return config
    return json.dumps({**settings, "model_max_length": longest}, indent=2, ensure_ascii=False) + "\n"


def read_kept_ids(state: Mapping[str, str]) -> dict[str, Any]:
    """The ids of special tokens that an imported model's config.json had, {} where it was none."""
    files = json.loads(state.get("files", "{}"))
    return json.loads(files.get("config.json", "{}"))


def build_bytes_tokenizer() -> str:
    """A tokenizer.json with one token per byte of UTF-8, id = byte, <eos> = 256: byte-level BPE without merges."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    eos = {"id": BYTES, "content": EOS, "special": True, "normalized": False}
    eos |= {"single_word": False, "lstrip": False, "rstrip": False}
    vocab = {character: byte for byte, character in enumerate(list_byte_characters())}
    settings = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [eos],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {**vocab, EOS: BYTES}, "merges": []},
    }
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def list_byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (Radford et al. 2019, GPT-2).

    Printable bytes of Latin-1 stand for themselves; the others take the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x100 + BYTES))
    return [chr(byte if byte in printable else next(others)) for byte in range(BYTES)]
