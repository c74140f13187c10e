"""`aptlab export ckpt=… [out=folder] [dtype=bfloat16] [force=true]`: a checkpoint as a Hugging Face folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aptlab.config import check, compose, fill_request
from aptlab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `aptlab export` is asked for.

    ckpt    last, best, a checkpoint or a run folder
    format  hf: the layout of transformers that computes this model
    out     the folder to write; None: the folder `hf` in the run folder
    dtype   of the written weights
    force   replace a model that is already there
    """

    ckpt: str | None
    format: Literal["hf"] = "hf"
    out: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    force: bool = False

    def __post_init__(self) -> None:
        if self.ckpt is None:
            raise ConfigError("export needs a checkpoint; add ckpt=last, ckpt=<run folder> or ckpt=<file>.ckpt")


def run(args: list[str]) -> int:
    """Write the folder and print where it is, with a note on everything that is written differently there."""
    config = compose("export", args)
    check(config)
    request = fill_request(ExportRequest, config)
    from aptlab.restore.hf_export import check_output_free, export_network, locate_run_folder
    from aptlab.restore.load import load_network, locate_checkpoint

    path = locate_checkpoint(str(request.ckpt), root=config.cfg.paths.root)
    print(f"ckpt {path}", file=sys.stderr)
    out = Path(request.out or locate_run_folder(path) / "hf").expanduser()
    check_output_free(out, force=request.force)
    for line in export_network(load_network(path), out, dtype=request.dtype, force=request.force):
        print(line)
    return 0
