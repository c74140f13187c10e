"""Hugging Face layouts: our decoder as Llama, Mistral, Qwen 2, Qwen 3, SmolLM 3, Phi-3, Gemma 3 or Llama 4, and back.

Only names and numbers are translated here; nothing imports transformers.
"""

from aptlab.models.hf.attention import Parts, attention_parts
from aptlab.models.hf.card import model_card
from aptlab.models.hf.family import FAMILIES, Family
from aptlab.models.hf.layout import Described, describe
from aptlab.models.hf.read import Source, read_folder
from aptlab.models.hf.rope import rope_parameters
from aptlab.models.hf.rope_read import rope_rule
from aptlab.models.hf.tokenizer import bytes_tokenizer, tokenizer_files
from aptlab.models.hf.weights import from_hf, to_hf

__all__ = [
    "FAMILIES",
    "Described",
    "Family",
    "Parts",
    "Source",
    "attention_parts",
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
