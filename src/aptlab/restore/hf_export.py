"""A loaded network as a Hugging Face folder: config, weights, tokenizer and model card, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config import redact_overrides
from aptlab.errors import AptlabError, ConfigError
from aptlab.restore.hf_lengths import describe_kept_lengths, find_kept_lengths
from aptlab.restore.special_tokens import collect_token_ids

if TYPE_CHECKING:
    from aptlab.restore.load import LoadedModel

PRIVATE = ("run_dir", "ckpt", "load", "job", "paths", "logger", "device")
PRIVATE += ("tokenizer.path", "data.cache", "data.source", "source")  # names of files
MODEL_FILES = ("config.json", "model.safetensors")


def locate_run_folder(path: Path) -> Path:
    """The run folder that a checkpoint lies in, else its own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def export_network(
    loaded: LoadedModel,
    out: str | Path,
    *,
    dtype: str = "float32",
    force: bool = False,
    reader: str | None = None,
) -> list[str]:
    """Write a loaded network to the folder `out`, whole or not at all; returns lines for the user.

    reader  name of the program in whose form config.json is written; None = the form that most of them read

    Raises ConfigError for what the layout or the reader cannot express, and for a folder that is already there.
    """
    import torch
    from safetensors.torch import save_file

    from aptlab.models.hf import build_tokenizer_files, convert_to_hf, describe_decoder, render_model_card

    out = Path(out)
    check_output_free(out, force=force)
    net, ids, kept = loaded.net, collect_token_ids(loaded.tokenizer), find_kept_lengths(loaded)
    described = describe_decoder(net, context=loaded.context, dtype=dtype, longest=kept.longest)
    notes = [*described.notes, *describe_kept_lengths(kept, described)]
    config, advice = choose_form({**described.config, **ids}, reader)
    weights = convert_to_hf(net, described.family, dtype=getattr(torch, dtype))
    card = render_model_card(
        described.config,
        {**loaded.meta, "overrides": filter_public_overrides(loaded.meta.get("overrides", []))},
        parameters=sum(weight.numel() for weight in net.parameters()),
        notes=[*notes, *loaded.describe_width()],
        reach=described.reach,
        result=read_run_result(loaded.path) if loaded.width is None else None,  # its losses are of the whole model
    )
    generation = {**ids, "pad_token_id": loaded.tokenizer.eos, "max_length": described.reach}
    texts = {
        "config.json": json.dumps(config, indent=2) + "\n",
        "generation_config.json": json.dumps(generation, indent=2) + "\n",
        "README.md": card,
        **name_reader_tokens(
            build_tokenizer_files(loaded.tokenizer.state(), longest=kept.tokenizer or described.reach), reader
        ),
    }

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    replace_folder(out, fill)
    return [*notes, f"written {out}: {described.config['architectures'][0]}, {dtype}", *advice]


def choose_form(config: dict[str, Any], reader: str | None) -> tuple[dict[str, Any], list[str]]:
    """A config.json as it stands, with who reads it how, or in the form of one reader, with notes.

    Raises ConfigError for a reader that has no form of its own, or that would not keep the model's positions.
    """
    from aptlab.models.hf.readers import READERS, describe_readers, find_reader, write_form

    if reader is None:
        return config, describe_readers(config, READERS)
    return write_form(config, find_reader(reader))


def name_reader_tokens(files: dict[str, str], reader: str | None) -> dict[str, str]:
    """A tokenizer's files with the special tokens that the reader does not do without."""
    from aptlab.models.hf.readers import find_reader
    from aptlab.models.hf.readers.forms import name_special_tokens

    tokens, name = find_reader(reader).tokens if reader else (), "tokenizer_config.json"
    return {**files, name: name_special_tokens(files[name], tokens)} if tokens else files


def filter_public_overrides(overrides: list[str]) -> list[str]:
    """Overrides fit to publish: no secrets, and nothing about the machine that trained."""
    return redact_overrides([text for text in overrides if not text.lstrip("+~").startswith(PRIVATE)])


def read_run_result(path: Path) -> dict[str, Any] | None:
    """result.json of the run that wrote the checkpoint, or None where there is none."""
    from aptlab.runs import Result

    folder = locate_run_folder(path)
    return Result.read(folder).plain() if (folder / "result.json").is_file() else None


def check_output_free(out: Path, *, force: bool, files: tuple[str, ...] = MODEL_FILES) -> None:
    """Raises ConfigError unless `out` is new or empty, or holds `files` and may be replaced."""
    if out.is_file():
        raise ConfigError(f"out={out} is a file; give a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not all((out / name).is_file() for name in files):
        raise ConfigError(f"out={out} holds other files; give a new or empty folder")
    if not force:
        raise ConfigError(f"out={out} already holds a model; give another folder, or force=true to replace it")


def replace_folder(out: Path, fill: Callable[[Path], None]) -> None:
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
