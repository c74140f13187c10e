#!/usr/bin/env bash
# Triton's interpreter: tl.dot of bfloat16 multiplies the bits of its numbers as whole numbers; float16 is right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq triton==3.9.0 torch==2.13.0 numpy==2.4.6
cat > "$dir/dot.py" <<'PY'
import torch
import triton
import triton.language as tl


@triton.jit
def multiply(a, b, out):
    i = tl.arange(0, 16)
    at = i[:, None] * 16 + i[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


for kind in (torch.float16, torch.bfloat16):
    one, out = torch.eye(16, dtype=kind), torch.empty(16, 16)
    multiply[(1,)](one, one, out)
    print(f"{kind}: 1 x 1 = {out[0, 0].item():g}, bits of 1: {one[0, 0].view(torch.int16).item()}")
PY
echo "triton 3.9.0, TRITON_INTERPRET=1"
TRITON_INTERPRET=1 "$dir/venv/bin/python" "$dir/dot.py" | tee "$dir/seen.txt"
printf '%s\n' "torch.float16: 1 x 1 = 1, bits of 1: 15360" "torch.bfloat16: 1 x 1 = 2.64258e+08, bits of 1: 16256" | diff - "$dir/seen.txt"
