#!/usr/bin/env bash
# W&B offline: run.finish() returns before the run's .wandb file has its contents on disk; a reader that copies the
# file then gets less than the run. wandb.teardown() waits for it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq wandb==0.31.0
cd "$dir"
mkdir run{0..29}  # W&B takes /tmp where the folder of a run is missing
cat > log.py <<'PY'
import sys
from pathlib import Path

import wandb

print("wandb", wandb.__version__)
for attempt in range(30):  # it is a race: about one run in five shows it
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(project="p", mode="offline", dir=f"run{attempt}", settings=settings)
    for step in range(100):
        run.log({"loss": 1 / (step + 1)})
    run.finish()
    file = next(Path(f"run{attempt}").rglob("*.wandb"))
    before = file.stat().st_size
    wandb.teardown()
    print(f"run {attempt}: {before} bytes when finish() has returned, {file.stat().st_size} after teardown()")
    if before < file.stat().st_size:
        sys.exit(0)
sys.exit(1)
PY
"$dir/venv/bin/python" log.py
