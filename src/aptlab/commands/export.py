"""`aptlab export ckpt=… [out=folder] [dtype=bfloat16] [force=true]`: a checkpoint as a Hugging Face folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config import check, compose, redact_overrides
from aptlab.errors import AptlabError, ConfigError, suggest_option

if TYPE_CHECKING:
    from aptlab.restore.load import LoadedModel

FORMATS = ("hf",)
DTYPES = ("float32", "bfloat16", "float16")
PRIVATE = ("run_dir", "ckpt", "load", "job", "paths", "logger", "device", "tokenizer.path", "data.cache", "data.source")
MODEL_FILES = ("config.json", "model.safetensors")


def run(args: list[str]) -> int:
    """Write the folder and print where it is, with a note on everything that is written differently there."""
    config = compose("export", args)
    check(config)
    wanted = config.resolved()
    if wanted["ckpt"] is None:
        raise ConfigError("export needs a checkpoint; add ckpt=last, ckpt=<run folder> or ckpt=<file>.ckpt")
    for key, options in (("format", FORMATS), ("dtype", DTYPES)):
        if wanted[key] not in options:
            raise ConfigError(
                f"{key}={wanted[key]}: export cannot write that{suggest_option(str(wanted[key]), options)}"
            )
    from aptlab.checkpoint import find_run_folder
    from aptlab.restore.load import load_network, locate_checkpoint

    path = locate_checkpoint(wanted["ckpt"])
    out = Path(wanted["out"] or find_run_folder(path) / "hf").expanduser()
    check_output_free(out, force=wanted["force"], files=MODEL_FILES)
    for line in export_network(load_network(path), out, dtype=wanted["dtype"], force=wanted["force"]):
        print(line)
    return 0


def export_network(loaded: LoadedModel, out: str | Path, *, dtype: str = "float32", force: bool = False) -> list[str]:
    """Write a loaded network to the folder `out`, whole or not at all; returns lines for the user.

    Raises ConfigError for what the layout cannot express, and for a folder that is already there.
    """
    import torch
    from safetensors.torch import save_file

    from aptlab.models.hf import build_tokenizer_files, convert_to_hf, describe_decoder, render_model_card

    out = Path(out)
    check_output_free(out, force=force, files=MODEL_FILES)
    net, eos = loaded.net, read_eos(loaded)
    described = describe_decoder(net, context=int(loaded.config["context"]), eos=eos, dtype=dtype)
    weights = convert_to_hf(net, described.family, dtype=getattr(torch, dtype))
    card = render_model_card(
        described.config,
        {**loaded.meta, "overrides": filter_public_overrides(loaded.meta.get("overrides", []))},
        parameters=sum(weight.numel() for weight in net.parameters()),
        notes=described.notes,
        result=read_run_result(loaded.path),
    )
    generation = {"eos_token_id": eos, "pad_token_id": eos, "max_length": described.config["max_position_embeddings"]}
    texts = {
        "config.json": json.dumps(described.config, indent=2) + "\n",
        "generation_config.json": json.dumps(generation, indent=2) + "\n",
        "README.md": card,
        **build_tokenizer_files(loaded.meta["tokenizer"], longest=described.config["max_position_embeddings"]),
    }

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    replace_folder(out, fill)
    return [*described.notes, f"written {out}: {described.config['architectures'][0]}, {dtype}"]


def filter_public_overrides(overrides: list[str]) -> list[str]:
    """Overrides fit to publish: no secrets, and nothing about the machine that trained."""
    kept = [text for text in overrides if not text.lstrip("+~").startswith(PRIVATE)]
    return redact_overrides(kept)


def read_eos(loaded: LoadedModel) -> int:
    return loaded.tokenizer.eos


def read_run_result(path: Path) -> dict[str, Any] | None:
    """result.json of the run that wrote the checkpoint, or None where there is none."""
    from aptlab.checkpoint import find_run_folder
    from aptlab.runs import Result

    folder = find_run_folder(path)
    return Result.read(folder).plain() if (folder / "result.json").is_file() else None


def check_output_free(out: Path, *, force: bool, files: tuple[str, ...]) -> None:
    """Raise ConfigError unless `out` is new or empty, or holds `files` and may be replaced."""
    if out.is_file():
        raise ConfigError(f"out={out} is a file; give a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not all((out / name).is_file() for name in files):
        raise ConfigError(f"out={out} holds other files; give a new or empty folder")
    if not force:
        raise ConfigError(f"out={out} already holds a model; give another folder, or force=true to replace it")


def replace_folder(out: Path, fill: Any) -> None:
    """Fill a temporary folder beside `out` and rename it into place; an old folder goes only after that."""
    tag = secrets.token_hex(4)
    new, old = out.with_name(f".{out.name}.{tag}.tmp"), out.with_name(f".{out.name}.{tag}.old")
    try:
        new.mkdir(parents=True)
        fill(new)
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(new, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    except OSError as error:
        raise AptlabError(f"cannot write {out}: {error.strerror or error}; choose another out") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
