"""A trained network out of its checkpoint: what eval, generate and export begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.errors import CheckpointError
from aptlab.restore.data import modernize_config

if TYPE_CHECKING:
    import torch

    from aptlab.models import Decoder

PREFIX = "net."  # LanguageTask keeps the network under this name


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and how it came to be.

    net        in eval mode, on the device asked for
    config     the resolved configuration of the run, a plain dict
    tokenizer  {"kind": "bytes"} or {"kind": "json", "json": text}
    step       optimizer steps taken
    path       the checkpoint's file
    meta       the whole "aptlab" entry of the checkpoint
    """

    net: Decoder
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    step: int
    path: Path
    meta: dict[str, Any]


def load_network(ckpt: str | Path, *, device: torch.device | str = "cpu") -> LoadedModel:
    """Build the network that a checkpoint describes and fill it with its weights.

    `ckpt` is a checkpoint, a run folder, `last` or `best`. The file is verified against its manifest and read with
    weights_only=True; the network is built by `aptlab.config.build`, which refuses targets outside the trust list.
    Raises CheckpointError or ConfigError.
    """
    from aptlab.checkpoint import load_checkpoint

    path = locate_checkpoint(ckpt)
    return restore_network(load_checkpoint(path), path=path, device=device)


def locate_checkpoint(ckpt: str | Path, *, root: str | Path = "outputs") -> Path:
    """The file meant by `ckpt`: `last` and `best` are looked for in all runs under `root`; a folder gives its last."""
    from aptlab.checkpoint import find_checkpoint

    if str(ckpt) in ("last", "best"):
        return Path(find_checkpoint(root, which=str(ckpt)))
    return Path(find_checkpoint(ckpt, which="last"))


def restore_network(state: dict[str, Any], *, path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The same from a checkpoint dict that is in memory; `path` is named in errors."""
    from aptlab.config import build

    meta = state.get("aptlab")
    if not isinstance(meta, dict) or "model" not in meta.get("config", {}):
        raise CheckpointError(
            f"{path} holds no aptlab configuration; give a checkpoint written by `aptlab train` or `aptlab import`"
        )
    net = build({**meta["config"]["model"], "vocab": int(meta["vocab"])})
    fill_weights(net, state.get("state_dict", {}), path)
    return LoadedModel(
        net=net.to(device).eval(),
        config=modernize_config(meta["config"]),
        tokenizer=meta["tokenizer"],
        step=int(meta.get("step", 0)),
        path=path,
        meta=meta,
    )


def fill_weights(net: Decoder, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Copy a task's weights into its network; every name and size must fit, or CheckpointError says which do not."""
    own = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
    expected = net.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in own]
    problems += [f"{name} is not part of this model" for name in own if name not in expected]
    problems += [
        f"{name} has sizes {list(own[name].shape)}, the model has {list(weight.shape)}"
        for name, weight in expected.items()
        if name in own and own[name].shape != weight.shape
    ]
    if problems:
        shown = "\n".join(problems[:8] + ([f"… and {len(problems) - 8} more"] if len(problems) > 8 else []))
        raise CheckpointError(
            f"the weights in {path} do not fit the model of its own configuration:\n{shown}\n"
            "was it trained with another version of the model's code? Install that version, or train again"
        )
    net.load_state_dict(own)
