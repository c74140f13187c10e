#!/usr/bin/env bash
# A config.json with rope_parameters and rope_scaling: the second is used as a whole. Editing rope_parameters changes
# nothing, and its rope_theta is lost where none stands at the top: 10000 is used, without a message.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq transformers==5.24.0 numpy==2.4.6
cat > "$dir/show.py" <<'PY'
import json
import sys
from pathlib import Path

import transformers

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
FORMS = {
    "rope_parameters alone": {"rope_parameters": YARN | {"rope_theta": 500000.0}},
    "both": {"rope_parameters": YARN | {"rope_theta": 500000.0}, "rope_scaling": YARN},
    "both, rope_parameters edited": {"rope_parameters": YARN | {"rope_theta": 500000.0, "factor": 8.0}, "rope_scaling": YARN},
}
folder = Path(sys.argv[1])
print("transformers", transformers.__version__)
found = []
for name, form in FORMS.items():
    text = json.dumps({"model_type": "llama", "max_position_embeddings": 16384} | form)
    (folder / "config.json").write_text(text)
    rope = transformers.AutoConfig.from_pretrained(folder).rope_parameters
    print(f"{name}: rope_theta={rope['rope_theta']} factor={rope['factor']}")
    found.append((rope["rope_theta"], rope["factor"]))
sys.exit(0 if found == [(500000.0, 4.0), (10000.0, 4.0), (10000.0, 4.0)] else 1)
PY
"$dir/venv/bin/python" "$dir/show.py" "$dir"
