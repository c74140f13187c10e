"""`aptlab export ckpt=… [out=folder] [dtype=bfloat16] [force=true]`: a checkpoint as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from aptlab.config import check, compose
from aptlab.errors import ConfigError, suggest_option

CHOICES = {"format": ("hf",), "dtype": ("float32", "bfloat16", "float16")}


def run(args: list[str]) -> int:
    """Write the folder and print where it is, with a note on everything that is written differently there."""
    config = compose("export", args)
    check(config)
    values = config.resolved()
    if values["ckpt"] is None:
        raise ConfigError("export needs a checkpoint; add ckpt=last, ckpt=<run folder> or ckpt=<file>.ckpt")
    for key, options in CHOICES.items():
        if values[key] not in options:
            raise ConfigError(
                f"{key}={values[key]}: export cannot write that{suggest_option(str(values[key]), options)}"
            )
    from aptlab.restore.hf_export import check_output_free, export_network, locate_run_folder
    from aptlab.restore.load import load_network, locate_checkpoint

    path = locate_checkpoint(values["ckpt"])
    out = Path(values["out"] or locate_run_folder(path) / "hf").expanduser()
    check_output_free(out, force=values["force"])
    for line in export_network(load_network(path), out, dtype=values["dtype"], force=values["force"]):
        print(line)
    return 0
