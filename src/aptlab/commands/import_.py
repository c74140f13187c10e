"""`aptlab import path=… out=… [layout=…]`: a Hugging Face folder as a checkpoint that eval, generate and train take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config import Config, build, check, compose
from aptlab.errors import ConfigError, DataError, suggest_option

if TYPE_CHECKING:
    from aptlab.models.hf import HFModel
    from aptlab.nn.positions.rope import Rope

NAME = "step-00000000.ckpt"
LAYOUTS = ("half", "interleaved")
OPTIONS = {  # rope options by the class that a folder is read into
    "Standard": "standard",
    "Linear": "linear",
    "Dynamic": "dynamic",
    "YaRN": "yarn",
    "Llama3": "llama3",
    "LongRoPE": "longrope",
    "Partial": "partial",
    "Proportional": "proportional",
    "IRope": "irope",
    "PerLayer": "per_layer",
    "NoRope": "none",
}


def run(args: list[str]) -> int:
    """Write the checkpoint, with its manifest, and print where it is."""
    request = compose("import", args)
    check(request)
    wanted = request.resolved()
    for key, example in (("path", "the folder of a model"), ("out", "a folder, or a file that ends in .ckpt")):
        if wanted[key] is None:
            raise ConfigError(f"import needs {key}=…, {example}")
    target = Path(wanted["out"]).expanduser()
    file = target if target.suffix == ".ckpt" else target / "checkpoints" / NAME
    if file.exists() and not wanted["force"]:
        raise ConfigError(f"{file} is already there; give another out, or force=true to replace it")
    if wanted["layout"] not in (None, *LAYOUTS):
        raise ConfigError(
            f"layout={wanted['layout']}: import cannot make that{suggest_option(str(wanted['layout']), LAYOUTS)}"
        )
    source = read_hf_source(Path(wanted["path"]).expanduser(), layout=wanted["layout"])
    for line in source.attention.notes:
        print(line)
    state = convert_hf_folder(Path(wanted["path"]).expanduser(), source=source)
    write_checkpoint(state, file)
    if file != target:
        write_run_files(state["aptlab"], target)
    print(f"written {file}: {state['aptlab']['vocab']} tokens; try aptlab generate ckpt={target}")
    return 0


def read_hf_source(folder: Path, *, layout: str | None = None) -> HFModel:
    """What a folder holds, its rotary pairs to be laid out as asked; None = as the folder has them."""
    from aptlab.models.hf import read_folder
    from aptlab.models.layouts import replace_layout

    source = read_folder(folder)
    if layout is None:
        return source
    parts = dataclasses.replace(source.attention, rope=replace_layout(source.rope, layout))
    return dataclasses.replace(source, attention=parts)


def convert_hf_folder(folder: Path, *, source: HFModel | None = None) -> dict[str, Any]:
    """The checkpoint of a Hugging Face folder: our weights in float32, and a configuration that rebuilds the model.

    Raises ConfigError for what our decoder does not compute, CheckpointError for files that are damaged or do not
    fit, DataError for a missing tokenizer.
    """
    from aptlab.models.hf import convert_from_hf

    source = source or read_hf_source(folder)
    tokenizer, choice = convert_tokenizer(source, folder)
    config = compose("train", [*derive_overrides(source), *choice])
    check(config)
    net = build(config.resolved()["model"])
    weights = convert_from_hf(source, net.state_dict())
    net.load_state_dict(weights)
    return make_checkpoint(config, net.state_dict(), tokenizer, source)


def derive_overrides(source: HFModel) -> list[str]:
    """The command line that describes the model to `aptlab train`."""
    shape, parts = source.shape, source.attention
    sizes = {name: getattr(shape, name) for name in ("dim", "depth", "heads", "kv_heads", "head_dim", "hidden")}
    lines = [f"size.{name}={value}" for name, value in sizes.items()]
    lines += derive_rope_overrides(source.rope) + derive_layer_overrides(source)
    values: dict[str, Any] = {
        "context": source.context,
        "vocab": source.vocab,
        "model.tied": source.tied,
        "norm.eps": source.eps,
        "attention.bias": parts.bias,
        "attention.qk_norm": parts.qk_norm,
        "attention.qk_norm_eps": source.eps,
        "attention.sinks": parts.sinks,
        "ffn.bias": source.ffn_bias,
    }
    return lines + [f"{key}={format_literal(value)}" for key, value in values.items()]


def derive_rope_overrides(rope: Rope) -> list[str]:
    """The option of a rule and its values, rules inside it as nodes."""
    name = OPTIONS[type(rope).__name__]
    return [f"rope={name}", *(f"rope.{key}={format_literal(value)}" for key, value in vars(rope).items())]


def derive_layer_overrides(source: HFModel) -> list[str]:
    """The options of attention, feed-forward and residual."""
    window = source.attention.window
    lines = ["attention=full" if window is None else "attention=sliding"]
    if window is not None:
        lines += [f"attention.window.{key}={format_literal(value)}" for key, value in vars(window).items()]
    lines += derive_ffn_overrides(source)
    if source.family.sandwich:
        return [*lines, "smooth=post_norm", f"smooth.eps={format_literal(source.eps)}"]
    return [*lines, "smooth=none"]


def derive_ffn_overrides(source: HFModel) -> list[str]:
    if source.clamp is not None:
        return ["ffn=swiglu_clamped", *(f"ffn.{k}={v}" for k, v in zip(("alpha", "limit"), source.clamp, strict=True))]
    if source.act == "silu":
        return ["ffn=swiglu"]
    return ["ffn=geglu", f"ffn.approximate={'none' if source.act == 'gelu' else 'tanh'}"]


def format_literal(value: Any) -> str:
    """A value in the grammar of overrides; a rule becomes a node that builds it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(format_literal(one) for one in value)}]"
    if dataclasses.is_dataclass(value):
        fields = {"_target_": f"aptlab.nn.positions.rope.{type(value).__name__}"} | vars(value)
        return f"{{{','.join(f'{key}:{format_literal(one)}' for key, one in fields.items())}}}"
    return str(value)


def convert_tokenizer(source: HFModel, folder: Path) -> tuple[dict[str, str], list[str]]:
    """The tokenizer's state for the checkpoint, and the overrides that choose it."""
    from aptlab.data.tokenizers import ByteTokenizer, JsonTokenizer
    from aptlab.models.hf import build_bytes_tokenizer

    path = folder / "tokenizer.json"
    if source.tokenizer is None:
        raise DataError(
            f"{path} is missing; aptlab reads fast tokenizers only, write one with transformers' "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    if source.tokenizer == build_bytes_tokenizer():
        return ByteTokenizer().state(), ["tokenizer=bytes"]
    from tokenizers import Tokenizer as Fast

    name = Fast.from_str(source.tokenizer).id_to_token(source.eos) if source.eos is not None else None
    tokenizer = JsonTokenizer(source.tokenizer, str(path), eos=name)
    if tokenizer.vocab_size > source.vocab:
        raise ConfigError(
            f"{path} has {tokenizer.vocab_size} tokens and config.json has vocab_size={source.vocab}; "
            "they belong to different models"
        )
    chosen = ["tokenizer=file", f"tokenizer.path='{path.resolve()}'"]
    return tokenizer.state(), [*chosen, *([f"tokenizer.eos='{name}'"] if name else [])]


def make_checkpoint(
    config: Config, weights: dict[str, Any], tokenizer: dict[str, str], source: HFModel
) -> dict[str, Any]:
    """The dict that `aptlab train` would have saved before its first step, without an optimizer's state."""
    from importlib.metadata import version

    from aptlab import __version__
    from aptlab.restore.load import PREFIX

    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": version("lightning"),
        "state_dict": {f"{PREFIX}{name}": weight for name, weight in weights.items()},
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "aptlab": {
            "version": __version__,
            "config": config.resolved(),
            "overrides": config.overrides,
            "choices": config.choices,
            "config_hash": config.hash(),
            "vocab": source.vocab,
            "tokenizer": tokenizer,
            "fingerprint": "",
            "step": 0,
            "run_dir": "",
            "wandb_id": None,
        },
    }


def write_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Save the checkpoint and its manifest, atomically."""
    from aptlab.checkpoint import AtomicIO

    file.parent.mkdir(parents=True, exist_ok=True)
    AtomicIO().save_checkpoint(state, file)


def write_run_files(meta: dict[str, Any], folder: Path) -> None:
    """The files by which other commands know a run folder."""
    from aptlab.runs.atomic import write_yaml

    for name in ("config", "overrides", "choices"):
        write_yaml(folder / f"{name}.yaml", meta[name])
