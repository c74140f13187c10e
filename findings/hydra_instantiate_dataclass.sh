#!/usr/bin/env bash
# hydra.utils.instantiate hands a dataclass object that is passed as an argument on as a config, not as the object:
# its methods are gone, and _convert_="all" makes a dict of it. Called through _partial_, the object arrives.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq hydra-core==1.3.8 omegaconf==2.3.1
cd "$dir"
cat > parts.py <<'PY'
import sys
from dataclasses import dataclass

from hydra.utils import instantiate

@dataclass(frozen=True)
class Rule:
    base: float = 1.0

    def double(self):
        return 2 * self.base

class Model:
    def __init__(self, rule):
        self.rule = rule

if __name__ == "__main__":
    from parts import Rule

    rule, node, found = Rule(3.0), {"_target_": "parts.Model"}, []
    for convert in ("none", "all", "object"):
        found.append(type(instantiate(node, rule=rule, _convert_=convert).rule).__name__)
        print(f'instantiate(node, rule=Rule(3.0), _convert_="{convert}").rule is a', found[-1])
    same = instantiate({**node, "_partial_": True})(rule=rule).rule is rule
    print("instantiate({..., _partial_: True})(rule=rule).rule is rule:", same)
    sys.exit(0 if found == ["DictConfig", "dict", "Rule"] and same else 1)
PY
echo "hydra-core 1.3.8, omegaconf 2.3.1"
"$dir/venv/bin/python" parts.py
