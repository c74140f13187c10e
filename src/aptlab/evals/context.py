"""An eval of a checkpoint: its network under the rule asked for, its data, its folder, and what is not as trained."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from aptlab.checkpoint import find_run_folder, read_manifest
from aptlab.config import Config, build, redact_overrides, redact_value
from aptlab.device import resolve_precision
from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, EvalFolder
from aptlab.models import Decoder
from aptlab.nn.width import Width, format_width
from aptlab.restore.data import build_data
from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint
from aptlab.restore.other_rule import replace_network_rope
from aptlab.runs.files import require_inner_folder
from aptlab.runs.folder import make_folder
from aptlab.shown import print_shown

IN_MEMORY = "in memory"  # weights that no file vouches for


@dataclass(frozen=True)
class CheckpointEval:
    """A request with everything it names opened; `values` is the whole request as plain values."""

    config: Config
    values: dict[str, Any]
    evaluation: Eval
    loaded: LoadedModel
    context: EvalContext
    folder: Path


def open_checkpoint_eval(
    config: Config, fill: Callable[[Mapping[str, Any]], dict[str, Any]], loaded: LoadedModel | None = None
) -> CheckpointEval:
    """Open what a request names; raises AptlabError before anything is measured.

    loaded  a model in memory: it is measured where it is and as it is, whatever its file says by now
    """
    cfg = config.cfg
    device = build(cfg.device).torch_device if loaded is None else str(loaded.device)
    precision = resolve_precision(cfg.precision, device.partition(":")[0])
    in_memory = loaded is not None
    loaded = loaded or load_network(locate_checkpoint(cfg.ckpt, root=cfg.paths.root), width=read_width(cfg.width))
    values = fill(loaded.config)
    evaluation = build_eval(values["eval"])
    evaluation.check_network(loaded.net)
    folder = make_eval_folder(values["out"], loaded.path)
    context = make_checkpoint_context(
        loaded,
        rope=values.get("rope"),
        data=values.get("data"),
        source=values.get("source"),
        device=device,
        precision=precision,
        folder=folder,
        in_memory=in_memory,
    )
    return CheckpointEval(config, values, evaluation, loaded, context, folder)


def build_eval(node: dict[str, Any]) -> Eval:
    """The eval of a config node; ConfigError for a class that is none."""
    evaluation = build(node, "eval")
    if not isinstance(evaluation, Eval):
        raise ConfigError(
            f"eval: {node['_target_']} is no eval; derive it from aptlab.evals.Eval, or choose an option of the group, "
            "as in eval=ruler"
        )
    return evaluation


def make_checkpoint_context(
    loaded: LoadedModel,
    *,
    rope: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    device: str = "cpu",
    precision: str = "32-true",
    folder: Path | None = None,
    in_memory: bool = False,
) -> EvalContext:
    """What an eval of a loaded checkpoint is given.

    rope       config node of another position rule; None: that of the checkpoint
    data       config node of another data module; None: that of the checkpoint
    source     config node of another source; None: that of `data`, else of the checkpoint
    folder     where results and journal go; None: nowhere
    in_memory  the weights may be other ones than the file's: no later evaluation of the file goes on with them
    """
    net = replace_network_rope(loaded, rope)
    if precision == "bf16-true":
        # A module converts itself in place, and a model in memory is its owner's.
        net = (copy.deepcopy(net) if in_memory else net).to(torch.bfloat16)
    trained = int(loaded.config["context"])
    identity = {
        "weights": IN_MEMORY if in_memory else read_manifest(loaded.path).sha256,
        "step": loaded.step,
        "rope": redact_value(rope or loaded.config.get("rope")),
        **({} if loaded.width is None else {"width": format_width(loaded.width)}),
    }
    return EvalContext(
        net=net,
        tokenizer=loaded.tokenizer,
        device=device,
        precision=precision,
        trained_context=trained,
        title=f"{format_rule_name(net)}{name_width(loaded)} at step {loaded.step:,} ({trained:,} tokens trained)",
        open_data=functools.cache(functools.partial(make_data, loaded, data, source)),
        folder=EvalFolder(folder, identity),
        run=find_run_folder(loaded.path),
    )


def describe_checkpoint(opened: CheckpointEval) -> dict[str, Any]:
    """What eval.json says first about every measurement; prints what is not as in the checkpoint."""
    loaded, context = opened.loaded, opened.context
    data = context.open_data() if opened.evaluation.reads_data else None
    own_text = not any(opened.config.choices.get(group) for group in ("data", "source"))
    changes = describe_differences(loaded, context.net, data, own_text=own_text)
    lines = [f"model    {loaded.path}, step {loaded.step:,}", *loaded.describe_width(), *changes]
    print_shown("\n".join(lines), flush=True)
    return {
        "checkpoint": str(loaded.path),
        **({"weights": IN_MEMORY} if context.folder.identity["weights"] == IN_MEMORY else {}),
        "step": loaded.step,
        "context": context.trained_context,
        "overrides": redact_overrides(opened.config.overrides),
        "changes": changes,
        "rope": context.folder.identity["rope"],
        **({} if loaded.width is None else {"width": loaded.width}),
        "data": None,
        "precision": context.precision,
        "device": context.device,
    }


def make_data(loaded: LoadedModel, data: dict[str, Any] | None, source: dict[str, Any] | None = None) -> Any:
    """The data module, of the checkpoint or of the request, with the checkpoint's tokenizer."""
    return build_data(loaded.config, tokenizer=loaded.tokenizer, data=data, source=source)


def describe_differences(loaded: LoadedModel, net: Decoder, data: Any | None, *, own_text: bool) -> list[str]:
    """Lines that say what is not as in the checkpoint; one line when nothing is. `data` None: no text is read."""
    lines = []
    if net.rope != loaded.net.rope:
        before, now = loaded.net.rope, net.rope
        lines.append(
            f"rope     {describe_rule_changes(before, now)} -> {describe_rule_changes(now, before)}, without training"
        )
    before = loaded.meta.get("fingerprint")
    if data is not None and not before:  # imported: nobody here has seen what it was trained on
        lines.append(f"data     {data.summary()['name']}; the weights come without the text that they were trained on")
    elif data is not None and data.fingerprint != before and own_text:
        lines.append("data     the text is not what it was in training: the source has changed, or is another here")
    elif data is not None and data.fingerprint != before:
        lines.append(f"data     {data.summary()['name']}, another text than in training")
    return lines or ["parts    all as in the checkpoint"]


def describe_rule_changes(rule: Any, other: Any) -> str:
    """The rule's name, with what is set in it and not the same in the other."""
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    changes = [
        f"{k}={v}" for k, v in values.items() if v is not None and v is not False and getattr(other, k, None) != v
    ]
    return f"{type(rule).__name__}({', '.join(changes)})" if changes else type(rule).__name__


def name_width(loaded: LoadedModel) -> str:
    """The width for a title; nothing for a whole model."""
    return "" if loaded.width is None else f", width {format_width(loaded.width)}"


def read_width(value: Any) -> Width | None:
    """The width of a request, a plain number or list."""
    return value if isinstance(value, int | float | None) else [float(one) for one in value]


def format_rule_name(net: Decoder) -> str:
    return f"rope {type(net.rope).__name__}"


def make_eval_folder(out: str | Path | None, ckpt: Path) -> Path:
    """`out`, or a new evals/<time> in the folder of the checkpoint's run; made before anything is measured."""
    if out is not None:
        return make_folder(out)
    now = require_inner_folder(find_run_folder(ckpt) / "evals") / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    # A loop in Python evaluates several times a second, and one must not go on with the journal of the one before.
    names = (now if number == 1 else now.with_name(f"{now.name}-{number}") for number in itertools.count(1))
    return make_folder(next(path for path in names if not path.exists()))
