#!/usr/bin/env bash
# lm_eval 0.4.13: two requests with the same tokens, split into context and continuation at different places, share
# one pass (logits_cache, on by default); the shorter continuation is then scored by the wrong positions.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq lm_eval==0.4.13 transformers==5.24.0 torch==2.13.0 accelerate==1.15.0
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" - <<'PY'
import logging, sys, types
from importlib.metadata import version

import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

logging.disable(logging.WARNING)
words = {word: number for number, word in enumerate(["<s>", "</s>", "a", "b", "c", "d", "e"])}
fast = Tokenizer(models.WordLevel(words, unk_token="<s>"))
fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="</s>")
torch.manual_seed(0)
sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=7, max_position_embeddings=32, initializer_range=1.0, **sizes)
lm = HFLM(LlamaForCausalLM(config).eval(), tokenizer=tokenizer, batch_size=1)
requests = [types.SimpleNamespace(args=pair) for pair in (("a b c", " d e"), ("a b c d", " e"))]
alone = [lm.loglikelihood([request], disable_tqdm=True)[0][0] for request in requests]
together = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
print("lm_eval", version("lm_eval"), "alone", alone, "together", together)
sys.exit(0 if abs(alone[1] - together[1]) > 1e-3 else 1)
PY
