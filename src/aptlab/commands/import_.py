"""`aptlab import path=… out=… [layout=…]`: a Hugging Face folder as a checkpoint that eval, generate and train take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aptlab.config import check, compose, fill_request
from aptlab.errors import ConfigError
from aptlab.shown import print_shown


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What `aptlab import` is asked for.

    path    the folder with config.json and safetensors
    out     a .ckpt file, or a folder that becomes a run folder
    layout  of rotary pairs, to which queries and keys are permuted; None: as the folder has them
    force   replace a checkpoint that is already there
    """

    path: str | None
    out: str | None
    layout: Literal["half", "interleaved"] | None = None
    force: bool = False

    def __post_init__(self) -> None:
        for key, example in (("path", "the folder of a model"), ("out", "a folder, or a file that ends in .ckpt")):
            if getattr(self, key) is None:
                raise ConfigError(f"import needs {key}=…, {example}")


def run(args: list[str]) -> int:
    """Write the checkpoint, with its manifest, and print where it is."""
    config = compose("import", args)
    check(config)
    request = fill_request(ImportRequest, config)
    from aptlab.restore.hf_import import import_hf_folder, locate_imported

    target = Path(str(request.out)).expanduser()
    file = locate_imported(target)
    if file.exists() and not request.force:
        raise ConfigError(f"{file} is already there; give another out, or force=true to replace it")
    for line in import_hf_folder(Path(str(request.path)).expanduser(), target, layout=request.layout):
        print_shown(line)
    return 0
