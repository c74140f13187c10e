"""Text to numbers and back. No torch."""

from aptlab.data.tokenizers.base import TextStream, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.bpe import BPE
from aptlab.data.tokenizers.bytes import ByteTokenizer
from aptlab.data.tokenizers.json import JsonTokenizer, TokenizerFile
from aptlab.data.tokenizers.state import restore_tokenizer

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
