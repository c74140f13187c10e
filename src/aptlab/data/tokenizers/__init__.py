"""Text to numbers and back. No torch."""

from aptlab.data.tokenizers.kinds import (
    BPE,
    ByteTokenizer,
    JsonTokenizer,
    TextStream,
    Tokenizer,
    TokenizerFile,
    TokenizerRule,
    restore_tokenizer,
)

__all__ = [
    "BPE",
    "ByteTokenizer",
    "JsonTokenizer",
    "TextStream",
    "Tokenizer",
    "TokenizerFile",
    "TokenizerRule",
    "restore_tokenizer",
]
