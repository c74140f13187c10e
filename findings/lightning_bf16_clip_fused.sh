#!/usr/bin/env bash
# Lightning refuses to clip gradients of a fused optimizer under precision=bf16-mixed because it "performs unscaling of
# gradients internally"; bf16-mixed has no loss scaler, so nothing is ever unscaled. Under 32-true it clips the same one.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq lightning==2.6.6 torch==2.13.0 numpy==2.4.6
cat > "$dir/show.py" <<'PY'
import logging
import sys
import warnings

import torch
from lightning import pytorch as pl

class Task(pl.LightningModule):
    def __init__(self, fused):
        super().__init__()
        self.net, self.fused = torch.nn.Linear(8, 1), fused

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), fused=self.fused)

def fit(precision, fused):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = pl.Trainer(accelerator="cpu", precision=precision, gradient_clip_val=1.0, max_steps=2, **quiet)
    try:
        trainer.fit(Task(fused), torch.utils.data.DataLoader(torch.randn(8, 8), batch_size=4))
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return f"trained, loss scaler: {getattr(trainer.precision_plugin, 'scaler', None)}"

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
print("lightning", pl.__version__, "torch", torch.__version__)
found = {(precision, fused): fit(precision, fused) for precision in ("32-true", "bf16-mixed") for fused in (False, True)}
for (precision, fused), words in found.items():
    print(f"precision={precision} fused={fused}: {words}")
refused = [case for case, words in found.items() if "does not allow for gradient clipping" in words]
sys.exit(0 if refused == [("bf16-mixed", True)] else 1)
PY
"$dir/venv/bin/python" "$dir/show.py"
