"""Hugging Face layouts: our decoder as one of `family.ALL` (Llama, Mistral, Qwen, Phi, Gemma, …), and back.

Only names and numbers are translated here; nothing imports transformers.
"""

from aptlab.models.hf.attention import AttentionOptions, read_attention
from aptlab.models.hf.card import render_model_card
from aptlab.models.hf.config_json import DecoderDescription, describe_decoder
from aptlab.models.hf.family import FAMILIES, list_families
from aptlab.models.hf.layout import Family
from aptlab.models.hf.read import HFModel, read_folder
from aptlab.models.hf.rope_from_hf import read_rope_rule
from aptlab.models.hf.rope_to_hf import build_rope_parameters
from aptlab.models.hf.tokenizer import build_bytes_tokenizer, build_tokenizer_files, read_kept_ids
from aptlab.models.hf.weights import convert_from_hf, convert_to_hf

__all__ = [
    "FAMILIES",
    "AttentionOptions",
    "DecoderDescription",
    "Family",
    "HFModel",
    "build_bytes_tokenizer",
    "build_rope_parameters",
    "build_tokenizer_files",
    "convert_from_hf",
    "convert_to_hf",
    "describe_decoder",
    "list_families",
    "read_attention",
    "read_folder",
    "read_kept_ids",
    "read_rope_rule",
    "render_model_card",
]
