#!/usr/bin/env bash
# cuDNN's attention in torch.nn.functional.scaled_dot_product_attention builds a plan for every new number of keys:
# a decode loop, whose keys grow by one a token, pays it at every token. Needs an NVIDIA GPU; exits 3 without one.
# PYTHON=... takes an interpreter that has a CUDA build of torch, instead of a fresh environment.
set -euo pipefail
nvidia-smi > /dev/null 2>&1 || { echo "no NVIDIA GPU: nothing to see"; exit 3; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -z "${PYTHON:-}" ]; then
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install -qq torch==2.11.0 numpy==2.4.6
  PYTHON="$dir/venv/bin/python"
fi
cat > "$dir/show.py" <<'PY'
import sys, time, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

def median_ms(backend, lengths):
    times = []
    for length in lengths:
        q, k, v = (torch.randn(1, 8, size, 64, device="cuda", dtype=torch.bfloat16) for size in (1, length, length))
        torch.cuda.synchronize()
        begun = time.perf_counter()
        with sdpa_kernel(backend):
            scaled_dot_product_attention(q, k, v)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    return sorted(times)[len(times) // 2]

print("torch", torch.__version__, "cuDNN", torch.backends.cudnn.version(), torch.cuda.get_device_name())
found = {}
for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
    median_ms(backend, [1000])
    found[backend.name] = median_ms(backend, range(1001, 1021)), median_ms(backend, range(1001, 1021))
    print(f"{backend.name}: {found[backend.name][0]:.2f} ms a call at 20 new key counts, {found[backend.name][1]:.2f} ms at the same again")
new, again = found["CUDNN_ATTENTION"]
sys.exit(0 if new > 10 * again and new > 10 * found["FLASH_ATTENTION"][0] else 1)
PY
"$PYTHON" "$dir/show.py"
