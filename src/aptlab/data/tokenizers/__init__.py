"""Text to numbers and back. No torch."""

from aptlab.data.tokenizers.base import Messages, TextStream, Tokenizer, TokenizerRule
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
