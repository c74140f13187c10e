#!/usr/bin/env bash
# hydra.main makes the output folder of a job before the job's code can look at its config: a config that the program
# refuses leaves a dated folder with three YAML files and a log, as if a run had begun.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq hydra-core==1.3.8 omegaconf==2.3.1
cd "$dir"
cat > app.py <<'PY'
import sys

import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.heads < 1:
        sys.exit(f"heads={config.heads}: at least 1")

main()
PY
echo "hydra-core 1.3.8"
code=0
"$dir/venv/bin/python" app.py +heads=0 || code=$?
echo "exit code $code; files left:"
find outputs -type f | sort
test "$code" = 1
test "$(find outputs -name '*.yaml' | wc -l)" = 3
