#!/usr/bin/env bash
# A training run that Lightning ends for a SIGTERM exits with code 0, as if it had finished: a scheduler that requeues
# preempted jobs by their exit code takes it for done.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq lightning==2.6.6 torch==2.13.0 numpy==2.4.6
cat > "$dir/train.py" <<'PY'
import os
import signal

import torch
from lightning import pytorch as pl

class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

print("lightning", pl.__version__, "torch", torch.__version__)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = pl.Trainer(accelerator="cpu", max_steps=100, **quiet)
try:
    trainer.fit(Task(), torch.utils.data.DataLoader(torch.randn(800, 8), batch_size=4))
finally:
    print(f"stopped at step {trainer.global_step} of 100", flush=True)
print("the line after fit()")
PY
code=0
"$dir/venv/bin/python" "$dir/train.py" 2> "$dir/err" > "$dir/out" || code=$?
cat "$dir/out"
echo "exit code $code (a process that SIGTERM ends has 143)"
grep -q '^stopped at step [0-9]* of 100' "$dir/out"
! grep -q 'the line after' "$dir/out"
test "$code" = 0
