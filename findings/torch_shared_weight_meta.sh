#!/usr/bin/env bash
# nn.Module.to("meta") and to_empty() make two parameters of one that two layers share: a tied head is no longer tied.
# On the way between two other places, as from float32 to bfloat16, it stays one.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6
cat > "$dir/show.py" <<'PY'
import sys

import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

def is_tied(net):
    return net.head.weight is net.embed.weight

with torch.device("meta"):
    born_on_meta = Tied()
found = {
    "made": is_tied(Tied()),
    "to(bfloat16)": is_tied(Tied().to(torch.bfloat16)),
    'to("meta")': is_tied(Tied().to("meta")),
    'made on meta, to_empty(device="cpu")': is_tied(born_on_meta.to_empty(device="cpu")),
}
print("torch", torch.__version__)
for way, tied in found.items():
    print(f"{way}: {'one weight' if tied else 'two weights'}")
sys.exit(0 if list(found.values()) == [True, True, False, False] else 1)
PY
"$dir/venv/bin/python" "$dir/show.py"
