#!/usr/bin/env bash
# mlx-lm: a Llama folder as transformers 5 saves it, with `rope_parameters` alone, is read with base 10000 and no scaling.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq mlx-lm==0.32.2 mlx==0.32.4 mlx-cpu==0.32.4
cat > "$dir/read.py" <<'PY'
from mlx_lm.models import llama

sizes = {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
sizes |= {"vocab_size": 128, "rms_norm_eps": 1e-6, "max_position_embeddings": 256, "model_type": "llama"}
yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
theta = 500000.0
newer = {"rope_parameters": {"rope_theta": theta, **yarn}}
older = {"rope_theta": theta, "rope_scaling": yarn}
for name, keys in (("rope_parameters", newer), ("rope_theta and rope_scaling", older)):
    args = llama.ModelArgs.from_dict(sizes | keys)
    rope = llama.Model(args).layers[0].self_attn.rope
    print(f"{name}: {type(rope).__name__}, base {args.rope_theta:g}")
PY
echo "mlx-lm 0.32.2"
"$dir/venv/bin/python" "$dir/read.py" | tee "$dir/seen.txt"
printf '%s\n' "rope_parameters: RoPE, base 10000" "rope_theta and rope_scaling: YarnRoPE, base 500000" | diff - "$dir/seen.txt"
