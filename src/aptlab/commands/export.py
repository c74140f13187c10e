"""`aptlab export ckpt=… [format=onnx] [for=mlx] [out=folder] [width=0.5] [force=true]`: a model for others."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aptlab.config import check, compose, fill_request
from aptlab.errors import ConfigError
from aptlab.limits import Share
from aptlab.restore.request import drop_data_places
from aptlab.shown import print_shown


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `aptlab export` is asked for.

    ckpt    last, best, a checkpoint or a run folder
    format  hf: the layout of transformers that computes this model; onnx: a graph from tokens to logits
    for_    the program that will read it, in whose form it is written or refused; None: the form that most read
    out     the folder to write; None: the folder `hf` or `onnx` in the run folder
    dtype   of the written weights
    width   of a nested model: one number, or one for each block; None = the whole model
    force   replace a model that is already there
    """

    ckpt: str | None
    format: Literal["hf", "onnx"] = "hf"
    for_: Literal["transformers5", "transformers4", "mlx", "ctranslate2", "llama.cpp", "onnx"] | None = None
    out: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    width: Share | list[Share] | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.ckpt is None:
            raise ConfigError("export needs a checkpoint; add ckpt=last, ckpt=<run folder> or ckpt=<file>.ckpt")
        if self.format == "onnx" and self.for_ not in (None, "onnx"):
            raise ConfigError(f"for={self.for_} reads folders of format=hf; leave one of format and for out")

    @property
    def kind(self) -> str:
        """What is written: hf or onnx."""
        return "onnx" if self.for_ == "onnx" else self.format


def run(args: list[str]) -> int:
    """Write the folder and print where it is, with a note on everything that is written differently there."""
    config = compose("export", drop_data_places(args, "export"))
    check(config)
    request = fill_request(ExportRequest, config)
    from aptlab.restore.hf_export import MODEL_FILES, check_output_free, export_network, locate_run_folder
    from aptlab.restore.load import load_network, locate_checkpoint, require_decoder
    from aptlab.restore.onnx_export import GRAPH_FILES, check_onnx_packages, export_graph

    graph = request.kind == "onnx"
    if graph:
        check_onnx_packages()
    path = locate_checkpoint(str(request.ckpt), root=config.cfg.paths.root)
    print_shown(f"ckpt {path}", file=sys.stderr)
    out = Path(request.out or locate_run_folder(path) / request.kind).expanduser()
    check_output_free(out, force=request.force, files=GRAPH_FILES if graph else MODEL_FILES)
    loaded = require_decoder(load_network(path, width=request.width), "aptlab export")
    if graph:
        lines = export_graph(loaded, out, dtype=request.dtype, force=request.force)
    else:
        lines = export_network(loaded, out, dtype=request.dtype, force=request.force, reader=request.for_)
    for line in [*loaded.describe_width(), *lines]:
        print_shown(line)
    return 0
