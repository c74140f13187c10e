"""Hugging Face layout: our decoder as LlamaForCausalLM or Qwen3ForCausalLM, and back.

Only names and sizes are translated here; nothing imports transformers.
"""

from aptlab.models.hf.card import model_card
from aptlab.models.hf.layout import Described, architecture, describe
from aptlab.models.hf.read import Source, read_folder
from aptlab.models.hf.rope import rope_parameters, rope_rule
from aptlab.models.hf.tokenizer import bytes_tokenizer, tokenizer_files
from aptlab.models.hf.weights import from_hf, to_hf

__all__ = [
    "Described",
    "Source",
    "architecture",
    "bytes_tokenizer",
    "describe",
    "from_hf",
    "model_card",
    "read_folder",
    "rope_parameters",
    "rope_rule",
    "to_hf",
    "tokenizer_files",
]
