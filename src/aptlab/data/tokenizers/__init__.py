"""Text to numbers and back. No torch. A tokenizer's file is loaded when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aptlab.data.tokenizers.base import Messages, TextStream, Tokenizer, TokenizerRule
from aptlab.lazy import load_on_demand

if TYPE_CHECKING:
    from aptlab.data.tokenizers.bpe import BPE
    from aptlab.data.tokenizers.bytes import ByteTokenizer
    from aptlab.data.tokenizers.hf_files import read_folder_files
    from aptlab.data.tokenizers.json import JsonTokenizer, TokenizerFile
    from aptlab.data.tokenizers.state import restore_tokenizer

__all__ = [
    "BPE",
    "ByteTokenizer",
    "JsonTokenizer",
    "Messages",
    "TextStream",
    "Tokenizer",
    "TokenizerFile",
    "TokenizerRule",
    "read_folder_files",
    "restore_tokenizer",
]

_HOMES = {
    "BPE": "bpe",
    "ByteTokenizer": "bytes",
    "JsonTokenizer": "json",
    "TokenizerFile": "json",
    "read_folder_files": "hf_files",
    "restore_tokenizer": "state",
}
__getattr__ = load_on_demand(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
