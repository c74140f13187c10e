"""Load, swap the position rule, measure, print, write."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from aptlab.commands.evaluating.figure import draw
from aptlab.commands.evaluating.request import Request
from aptlab.commands.loading import Loaded, load, locate
from aptlab.config import build, redact, redact_overrides
from aptlab.data.tokenizers import from_state
from aptlab.device import resolve_precision
from aptlab.errors import AptlabError
from aptlab.evals import evaluate, fitting_windows
from aptlab.models import Decoder
from aptlab.report import length_table
from aptlab.runs import RunLog
from aptlab.runs.atomic import write_json


def measure(request: Request) -> Path:
    """Everything after the check; returns the folder with eval.json and figure.png."""
    with RunLog.start(None):
        cfg = request.config.cfg
        device = build(cfg.device).torch_device
        precision = resolve_precision(cfg.precision, device)
        loaded = load(locate(cfg.ckpt, root=cfg.paths.root))
        wanted = request.filled(loaded.config)
        folder = make_folder(wanted["out"], loaded.path)
        net = net_with(loaded, wanted.get("rope"))
        data = make_data(loaded, wanted.get("data"))
        changes = differences(loaded, net, data, own_text=wanted.get("data") is None)
        print("\n".join([f"model    {loaded.path}, step {loaded.step:,}", *changes]), flush=True)
        context = int(loaded.config["context"])
        windows = fitting_windows(data, context=context, multiples=request.multiples, tokens=request.tokens)
        if precision == "bf16-true":
            net = net.to(torch.bfloat16)
        begun = time.perf_counter()
        measured = evaluate(net, windows, device=device, precision=precision, progress=progress)
        seconds = time.perf_counter() - begun
        print(length_table(measured.rows, context))
        write_json(
            folder / "eval.json",
            {
                "checkpoint": str(loaded.path),
                "step": loaded.step,
                "context": context,
                "overrides": redact_overrides(request.config.overrides),
                "changes": changes,
                "rope": redact(wanted.get("rope") or loaded.config.get("rope")),
                "data": {"fingerprint": data.fingerprint, **windows.meta},
                "precision": precision,
                "device": device,
                "seconds": seconds,
                "lengths": measured.rows,
                "positions": measured.positions,
            },
        )
        title = f"{rule_name(net)} at step {loaded.step:,} ({context:,} tokens trained)"
        figure = draw(measured.rows, measured.positions, title=title, path=folder / "figure.png", context=context)
        print(f"figure   {figure}\nresults  {folder / 'eval.json'}")
    return folder


def net_with(loaded: Loaded, rope: dict[str, Any] | None) -> Decoder:
    """The network as trained, or the same weights under another position rule. Rotary tables are no weights."""
    if rope is None:
        return loaded.net
    net = build({**loaded.config["model"], "vocab": loaded.net.vocab, "rope": rope})
    net.load_state_dict(loaded.net.state_dict())
    return net.eval()


def make_data(loaded: Loaded, node: dict[str, Any] | None) -> Any:
    """The data module, of the checkpoint or of the request, with the checkpoint's tokenizer."""
    return build({**(node or loaded.config["data"]), "tokenizer": None}, tokenizer=from_state(loaded.tokenizer))


def differences(loaded: Loaded, net: Decoder, data: Any, *, own_text: bool) -> list[str]:
    """Lines that say what is not as in the checkpoint; one line when nothing is."""
    lines = []
    if net.rope != loaded.net.rope:
        lines.append(f"rope     {loaded.net.rope} -> {net.rope}, without training")
    before = loaded.meta.get("fingerprint")
    if data.fingerprint != before and own_text:
        lines.append("data     the text is not what it was in training: the source has changed, or is another here")
    elif data.fingerprint != before:
        lines.append(f"data     {data.summary()['name']}, another text than in training")
    return lines or ["parts    all as in the checkpoint"]


def rule_name(net: Decoder) -> str:
    return f"rope {type(net.rope).__name__}"


def make_folder(out: str | None, ckpt: Path) -> Path:
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


def progress(multiple: int) -> None:
    """On a terminal, say which length is being read."""
    if sys.stderr.isatty():
        print(f"\x1b[2mmeasuring {multiple}x …\x1b[0m", file=sys.stderr, flush=True)
