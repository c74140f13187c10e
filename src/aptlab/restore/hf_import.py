"""A Hugging Face folder as a checkpoint: its layout as a configuration of ours, its weights in our network."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config import Config, build, check, compose
from aptlab.config.option_names import require_option_name
from aptlab.config.sweeps import format_text
from aptlab.errors import ConfigError, DataError
from aptlab.restore.hf_lengths import KEY, read_folder_lengths
from aptlab.restore.special_tokens import describe_special_tokens, drop_own_files

if TYPE_CHECKING:
    from aptlab.models.hf import HFModel
    from aptlab.models.hf.scalars import Multipliers
    from aptlab.nn.positions.rope import Rope

NAME = "step-00000000.ckpt"
# What transformers' generate does where the frequencies change, and how to do the same, by whether it is Phi-3.
CROSSINGS = {
    True: ("begins with those of short texts and reads the text again there", "crossing=reprefill does the same"),
    False: ("changes them there under the keys that it has cached", "which differs from reading the text at once"),
}


def locate_imported(target: Path) -> Path:
    """The checkpoint's file in a run folder `target`; `target` itself if it ends in .ckpt."""
    return target if target.suffix == ".ckpt" else target / "checkpoints" / NAME


def import_hf_folder(folder: Path, target: Path, *, layout: str | None = None) -> list[str]:
    """Write the checkpoint of a Hugging Face folder into the run folder or file `target`; lines for the user.

    layout  of the rotary pairs, half or interleaved; None = as the folder has them. Raises as `convert_hf_folder`.
    """
    from aptlab.models.hf import read_folder

    source = read_folder(folder, layout=layout)
    state, file = convert_hf_folder(folder, source=source), locate_imported(target)
    write_checkpoint(state, file)
    if file != target:
        write_run_files(state["aptlab"], target)
    written = f"written {file}: {state['aptlab']['vocab']} tokens; try aptlab generate ckpt={target}"
    special = describe_special_tokens(state["aptlab"]["tokenizer"])
    return [*source.notes, *describe_crossing(source), *special, written]


def convert_hf_folder(folder: Path, *, source: HFModel | None = None) -> dict[str, Any]:
    """The checkpoint of a Hugging Face folder: our weights in float32, and a configuration that rebuilds the model.

    Raises ConfigError for what our decoder does not compute, CheckpointError for files that are damaged or do not
    fit, DataError for a missing tokenizer.
    """
    from aptlab.models.hf import convert_from_hf, read_folder

    source = source or read_folder(folder)
    tokenizer, choice = convert_tokenizer(source, folder)
    config = compose("train", [*derive_overrides(source), *choice])
    check(config)
    net = build(config.stored()["model"], "model")
    weights = convert_from_hf(source, net.state_dict())
    net.load_state_dict(weights)
    state = make_checkpoint(config, net.state_dict(), tokenizer, source)
    lengths = read_folder_lengths(folder, longest=source.longest, rope=state["aptlab"]["config"]["rope"])
    state["aptlab"][KEY] = lengths
    return state


def changes_with_length(rule: Rope, head_dim: int, original_len: int) -> bool:
    """Whether long texts have other frequencies than short ones."""
    return rule.frequencies_at(1, head_dim) != rule.frequencies_at(4 * original_len, head_dim)


def describe_crossing(source: HFModel) -> list[str]:
    """A line where a text that grows past the trained length is continued otherwise by transformers."""
    from aptlab.models.hf.family import PHI3

    rules = [source.rope.for_layer(layer).rule for layer in range(source.shape.depth)]
    head_dim = source.shape.head_sizes()[2]
    known = [(rule, rule.scaling.original_len) for rule in rules if rule is not None and rule.scaling is not None]
    lengths = [length for rule, length in known if changes_with_length(rule, head_dim, length)]
    if not lengths:
        return []
    theirs, same = CROSSINGS[source.family is PHI3]
    return [
        f"frequencies change at {lengths[0]} tokens: aptlab generate chooses them by the final length "
        f"(crossing=admit), transformers' generate {theirs}; {same}"
    ]


def derive_overrides(source: HFModel) -> list[str]:
    """The command line that describes the model to `aptlab train`."""
    shape, parts = source.shape, source.attention
    sizes = {name: getattr(shape, name) for name in ("dim", "depth", "heads", "kv_heads", "head_dim", "hidden")}
    lines = [f"size.{name}={value}" for name, value in sizes.items()]
    lines += derive_rope_overrides(source.rope) + derive_layer_overrides(source) + derive_block_overrides(source)
    values: dict[str, Any] = {
        "context": source.context,
        "vocab": source.vocab,
        "model.tied": source.tied,
        "norm.eps": source.eps,
        "attention.bias": parts.bias,
        "attention.qk_norm": parts.qk_norm,
        "attention.qk_norm_eps": source.eps,
        "attention.sinks": parts.sinks,
        "attention.logits.scale": parts.logits.scale,
        "attention.logits.softcap": parts.logits.softcap,
        "ffn.bias": source.ffn_bias,
    }
    return lines + [f"{key}={format_literal(value)}" for key, value in values.items()]


def derive_rope_overrides(rope: Rope) -> list[str]:
    """The option of a rule and its values, rules inside it as nodes."""
    name = require_option_name("rope", type(rope))
    return [f"rope={name}", *(f"rope.{key}={format_literal(value)}" for key, value in vars(rope).items())]


def derive_layer_overrides(source: HFModel) -> list[str]:
    """The options of attention, feed-forward and residual."""
    window = source.attention.window
    lines = ["attention=full" if window is None else "attention=sliding"]
    if window is not None:
        lines += [f"attention.window.{key}={format_literal(value)}" for key, value in vars(window).items()]
    return [*lines, *derive_ffn_overrides(source), *derive_multiplier_overrides(source.multipliers)]


def derive_multiplier_overrides(multipliers: Multipliers) -> list[str]:
    """The options of residual and embedding."""
    lines = ["smooth=none"]
    if multipliers.residual != 1:
        lines = ["smooth=residual_scale", f"smooth.factor={format_literal(multipliers.residual)}"]
    if multipliers.embedding != 1:
        node = f"_target_:aptlab.nn.embedding.ScaledEmbedding,_partial_:true,scale:{multipliers.embedding}"
        lines.append(f"model.embedding={{{node}}}")
    return lines


def derive_block_overrides(source: HFModel) -> list[str]:
    """The options of the block, its norms and the head."""
    around = source.block
    kind, _, without_bias = around.norm.partition(" ")
    lines = [f"block={around.block}", f"norm={kind}", *(["norm.bias=false"] if without_bias else [])]
    return lines + [f"model.head.{key}={format_literal(value)}" for key, value in vars(around.head).items()]


def derive_ffn_overrides(source: HFModel) -> list[str]:
    """The option of the feed-forward by its gate and activation."""
    if source.clamp is not None:
        return ["ffn=swiglu_clamped", *(f"ffn.{k}={v}" for k, v in zip(("alpha", "limit"), source.clamp, strict=True))]
    if source.act == "silu":
        return ["ffn=swiglu"]
    return [
        f"ffn={'geglu' if source.block.gated else 'gelu'}",
        f"ffn.approximate={'none' if source.act == 'gelu' else 'tanh'}",
    ]


def format_literal(value: Any) -> str:
    """A value in the grammar of overrides; a rule becomes a node that builds it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(format_literal(item) for item in value)}]"
    if dataclasses.is_dataclass(value):
        fields = {"_target_": name_public_target(type(value))} | vars(value)
        return f"{{{','.join(f'{key}:{format_literal(item)}' for key, item in fields.items())}}}"
    if isinstance(value, str) and not value.isidentifier():
        return format_text("", value).removeprefix("=")
    return str(value)


def name_public_target(kind: type) -> str:
    """The `_target_` of a class: the topmost package that exports it, else the module that defines it."""
    parents = kind.__module__.split(".")
    modules = (".".join(parents[:end]) for end in range(1, len(parents) + 1))
    home = next(name for name in modules if vars(sys.modules[name]).get(kind.__name__) is kind)
    return f"{home}.{kind.__name__}"


def convert_tokenizer(source: HFModel, folder: Path) -> tuple[dict[str, str], list[str]]:
    """The tokenizer's state for the checkpoint, and the overrides that choose it."""
    from aptlab.data.tokenizers import ByteTokenizer, JsonTokenizer, read_folder_files
    from aptlab.models.hf import build_bytes_tokenizer

    path = folder / "tokenizer.json"
    if source.tokenizer is None:
        raise DataError(
            f"{path} is missing; aptlab reads fast tokenizers only, write one with transformers' "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    if source.tokenizer == build_bytes_tokenizer():
        return ByteTokenizer().state(), ["tokenizer=bytes"]
    tokenizer = JsonTokenizer(source.tokenizer, str(path), files=read_folder_files(path))
    if tokenizer.vocab_size > source.vocab:
        raise ConfigError(
            f"{path} has {tokenizer.vocab_size} tokens and config.json has vocab_size={source.vocab}; "
            "they belong to different models"
        )
    state = drop_own_files(tokenizer)
    texts = {"tokenizer.path": str(path.resolve()), "tokenizer.eos": state["eos"]}
    return state, ["tokenizer=file", *(format_text(key, text) for key, text in texts.items())]


def make_checkpoint(
    config: Config, weights: dict[str, Any], tokenizer: dict[str, str], source: HFModel
) -> dict[str, Any]:
    """The dict that `aptlab train` would have saved before its first step, without an optimizer's state."""
    from importlib.metadata import version

    from aptlab.restore.load import PREFIX
    from aptlab.version import __version__

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
            "config": config.public(),
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
    from aptlab.runs.files import require_inner_folder

    require_inner_folder(file.parent).mkdir(parents=True, exist_ok=True)
    AtomicIO().save_checkpoint(state, file)


def write_run_files(meta: dict[str, Any], folder: Path) -> None:
    """The files by which other commands know a run folder."""
    from aptlab.runs.record import write_yaml_record

    for name in ("config", "overrides", "choices"):
        write_yaml_record(folder / f"{name}.yaml", meta[name])
