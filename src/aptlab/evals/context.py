"""What every measurement begins with: the checkpoint, its network under the rule asked for, device and folder."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from aptlab.config import build, redact_overrides, redact_value
from aptlab.data.tokenizers import Tokenizer
from aptlab.device import resolve_precision
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.request import EvalRequest
from aptlab.evals.rules import Evaluation, Retrieval, SlidingLoss
from aptlab.models import Decoder
from aptlab.restore.data import build_data
from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint

ROTARY = "rotaries."  # where the decoder keeps the modules of its position rules


@dataclass(frozen=True)
class EvalContext:
    """A request with everything it names opened. `wanted` is the whole request as plain values."""

    request: EvalRequest
    wanted: dict[str, Any]
    rule: Evaluation
    loaded: LoadedModel
    net: Decoder
    tokenizer: Tokenizer
    device: str
    precision: str
    folder: Path

    @property
    def context(self) -> int:
        """Tokens the model was trained at."""
        return int(self.loaded.config["context"])

    def lengths(self, rule: SlidingLoss | Retrieval) -> tuple[int, ...]:
        """The lengths that a rule asks for; ConfigError for one that the model has no positions for."""
        found = rule.at(self.context)
        if found[-1] > self.net.longest:
            raise ConfigError(
                f"eval.lengths: {found[-1]:,} tokens are more than the {self.net.longest:,} positions that the model "
                f"has; ask for at most these, as in eval.lengths=[{min(self.context, self.net.longest)}]"
            )
        return found

    def data(self) -> Any:
        """The data module of the request, else of the checkpoint, with the checkpoint's tokenizer."""
        return make_data(self.loaded, self.wanted.get("data"), self.wanted.get("source"))

    def changes(self, data: Any | None) -> list[str]:
        """Lines that say what is not as in the checkpoint; printed, with the checkpoint, when they are asked for."""
        lines = describe_differences(self.loaded, self.net, data, own_text=not self._names_data())
        print("\n".join([f"model    {self.loaded.path}, step {self.loaded.step:,}", *lines]), flush=True)
        return lines

    def _names_data(self) -> bool:
        return any(self.wanted.get(group) is not None for group in ("data", "source"))

    def facts(self, changes: list[str], data: dict[str, Any] | None) -> dict[str, Any]:
        """What eval.json says about every measurement."""
        return {
            "checkpoint": str(self.loaded.path),
            "step": self.loaded.step,
            "context": self.context,
            "overrides": redact_overrides(self.request.config.overrides),
            "changes": changes,
            "rope": redact_value(self.wanted.get("rope") or self.loaded.config.get("rope")),
            "data": data,
            "precision": self.precision,
            "device": self.device,
        }

    def title(self) -> str:
        return f"{format_rule_name(self.net)} at step {self.loaded.step:,} ({self.context:,} tokens trained)"


def open_eval_context(request: EvalRequest, loaded: LoadedModel | None = None) -> EvalContext:
    """Open what a request names; raises AptlabError before anything is measured.

    loaded  a model in memory: it is measured where it is and as it is, whatever its file says by now
    """
    cfg = request.config.cfg
    device = build(cfg.device).torch_device if loaded is None else str(loaded.device)
    precision = resolve_precision(cfg.precision, device.partition(":")[0])
    in_memory = loaded is not None
    loaded = loaded or load_network(locate_checkpoint(cfg.ckpt, root=cfg.paths.root))
    wanted = request.filled(loaded.config)
    folder = make_eval_folder(wanted["out"], loaded.path)
    net = replace_network_rope(loaded, wanted.get("rope"))
    if precision == "bf16-true":
        # A module converts itself in place, and a model in memory is its owner's.
        net = (copy.deepcopy(net) if in_memory else net).to(torch.bfloat16)
    return EvalContext(
        request=request,
        wanted=wanted,
        rule=build(wanted["eval"], "eval"),
        loaded=loaded,
        net=net,
        tokenizer=loaded.tokenizer,
        device=device,
        precision=precision,
        folder=folder,
    )


def replace_network_rope(loaded: LoadedModel, rope: dict[str, Any] | None) -> Decoder:
    """The network as trained, or the same weights under another position rule.

    Rotary tables are no weights; what a rule has learned itself stays with that rule, and another one begins anew.
    """
    if rope is None:
        return loaded.net
    net = build({**loaded.config["model"], "vocab": loaded.net.vocab, "rope": rope})
    own = net.state_dict()
    trained = loaded.net.state_dict()
    kept = {
        name: value
        for name, value in trained.items()
        if not name.startswith(ROTARY) or has_same_shape(value, own.get(name))
    }
    net.load_state_dict({**{name: value for name, value in own.items() if name.startswith(ROTARY)}, **kept})
    return net.eval()


def has_same_shape(value: torch.Tensor, place: torch.Tensor | None) -> bool:
    return place is not None and place.shape == value.shape


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
    if data is not None and data.fingerprint != before and own_text:
        lines.append("data     the text is not what it was in training: the source has changed, or is another here")
    elif data is not None and data.fingerprint != before:
        lines.append(f"data     {data.summary()['name']}, another text than in training")
    return lines or ["parts    all as in the checkpoint"]


def describe_rule_changes(rule: Any, other: Any) -> str:
    """The rule's name, with what is set in it and not the same in the other."""
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    told = [f"{k}={v}" for k, v in values.items() if v is not None and v is not False and getattr(other, k, None) != v]
    return f"{type(rule).__name__}({', '.join(told)})" if told else type(rule).__name__


def format_rule_name(net: Decoder) -> str:
    return f"rope {type(net.rope).__name__}"


def make_eval_folder(out: str | None, ckpt: Path) -> Path:
    """`out`, or evals/<time> in the folder of the checkpoint's run; made before anything is measured."""
    if out is not None:
        folder = Path(out).expanduser()
    else:
        run = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
        folder = run / "evals" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AptlabError(
            f"cannot make the folder {folder}: {error.strerror or error}; choose another with out=…"
        ) from error
    return folder
