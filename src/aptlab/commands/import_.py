"""`aptlab import path=… out=… [layout=…]`: a Hugging Face folder as a checkpoint that eval, generate and train take."""

from __future__ import annotations

from pathlib import Path

from aptlab.config import check, compose
from aptlab.errors import ConfigError, suggest_option

LAYOUTS = ("half", "interleaved")


def run(args: list[str]) -> int:
    """Write the checkpoint, with its manifest, and print where it is."""
    request = compose("import", args)
    check(request)
    values = request.resolved()
    for key, example in (("path", "the folder of a model"), ("out", "a folder, or a file that ends in .ckpt")):
        if values[key] is None:
            raise ConfigError(f"import needs {key}=…, {example}")
    from aptlab.restore.hf_import import import_hf_folder, locate_imported

    target, layout = Path(values["out"]).expanduser(), values["layout"]
    file = locate_imported(target)
    if file.exists() and not values["force"]:
        raise ConfigError(f"{file} is already there; give another out, or force=true to replace it")
    if layout not in (None, *LAYOUTS):
        raise ConfigError(f"layout={layout}: import cannot make that{suggest_option(str(layout), LAYOUTS)}")
    for line in import_hf_folder(Path(values["path"]).expanduser(), target, layout=layout):
        print(line)
    return 0
