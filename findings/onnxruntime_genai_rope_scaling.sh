#!/usr/bin/env bash
# onnxruntime-genai: the model builder makes one graph of a Llama with and without linear or YaRN scaling, without a word.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx_ir==1.1.0 transformers==5.24.0 torch==2.13.0
cat > "$dir/build.py" <<'PY'
import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime_genai.models.builder import create_model, parse_extra_options
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

dir, past = Path(sys.argv[1]), np.zeros((1, 4, 0, 16), np.float32)
sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 128}
rules = {"linear": {"factor": 4.0}, "yarn": {"factor": 4.0, "original_max_position_embeddings": 64}}
rules["llama3"] = rules["yarn"] | {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(128)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w1")
ids = torch.randint(0, 128, (1, 50), generator=torch.Generator().manual_seed(0))
seen = {}
for name in ("default", *rules):
    torch.manual_seed(0)
    rope = {"rope_type": name, "rope_theta": 10000.0, **rules.get(name, {})}
    config = LlamaConfig(**sizes, max_position_embeddings=256, rope_parameters=rope, initializer_range=0.4)
    net = LlamaForCausalLM(config).eval()
    for part in (net, tokenizer):
        part.save_pretrained(dir / name)
    named = ("", str(dir / name), str(dir / f"{name}_built"), "fp32", "cpu", str(dir / "cache"))
    with contextlib.redirect_stdout(io.StringIO()):
        create_model(*named, **parse_extra_options(*named, []))
    session = onnxruntime.InferenceSession(str(dir / f"{name}_built" / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 50), np.int64), "position_ids": np.arange(50)[None]}
    seen[name] = session.run(["logits"], {i.name: feeds.get(i.name, past) for i in session.get_inputs()})[0]
    kept = np.abs(seen[name] - net(ids).logits.detach().numpy()).max() < 1e-2
    same = np.abs(seen[name] - seen["default"]).max() < 1e-2
    print(f"{name}: logits of transformers {kept}, of no scaling {same}")
PY
echo "onnxruntime-genai 0.18.0, transformers 5.24.0"
"$dir/venv/bin/python" "$dir/build.py" "$dir" 2> /dev/null | tee "$dir/seen.txt"
printf '%s\n' "default: logits of transformers True, of no scaling True" "linear: logits of transformers False, of no scaling True" \
    "yarn: logits of transformers False, of no scaling True" "llama3: logits of transformers True, of no scaling False" | diff - "$dir/seen.txt"
