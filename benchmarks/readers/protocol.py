"""What every reader's script shares: folders in, logits out, a line of JSON a folder. Runs in the reader's own Python.

A job is {"folders": {name: path}, "tokens": [[…], …], "out": folder}. A script gives `serve` a function that opens a
folder and returns another, from token ids to logits [T, V].
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Logits = Callable[[list[int]], Any]


def serve(open_folder: Callable[[Path, Path], Logits]) -> None:
    """Run the job named on the command line; `open_folder(folder, work)` may write what it converts to `work`."""
    print("READY", flush=True)
    job = json.loads(Path(sys.argv[1]).read_text())
    for name, folder in job["folders"].items():
        out = Path(job["out"]) / name
        out.mkdir(parents=True, exist_ok=True)
        try:
            logits = open_folder(Path(folder), out)
            for tokens in job["tokens"]:
                values = np.asarray(logits(list(tokens)), dtype=np.float32)
                np.save(out / f"{len(tokens)}.npy", values)
            line = {"name": name, "reason": None}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            line = {"name": name, "reason": text[:300]}
        print("RESULT " + json.dumps(line), flush=True)
