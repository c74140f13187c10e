"""The public API: the five functions of `import aptlab`. The commands call what they call.

Overrides are those of the command line, one string each: `"rope=yarn"` chooses an option, `"rope.factor=8"` sets a
value. `aptlab ls`, `aptlab show rope=yarn` and `aptlab train --help` say what there is. Importing the functions loads
no torch; calling them does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from aptlab.errors import ConfigError, suggest_option
from aptlab.nn.width import Width
from aptlab.restore.load import LoadedModel
from aptlab.sample import DRAFT_TOKENS, SamplingOptions

if TYPE_CHECKING:
    import torch

    from aptlab.config import Config
    from aptlab.data.tokenizers import Messages
    from aptlab.runs import Run
    from aptlab.sample import GeneratedText


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation wrote.

    folder  holds eval.json and what else the measurement leaves (a figure, samples)
    values  eval.json as a dict: the measured rows, and what was measured (checkpoint, step, rope, data, precision)
    """

    folder: Path
    values: dict[str, Any]


def load(
    ckpt: str | Path = "last",
    *,
    device: str | torch.device = "auto",
    root: str | Path = "outputs",
    width: Width | None = None,
) -> LoadedModel:
    """A trained network out of its checkpoint, in eval mode, with its tokenizer and configuration.

    Args:
        ckpt: `last` or `best` (of all runs under `root`), a run folder (its last), or a .ckpt file.
        device: `auto` (CUDA where it is, else the CPU), or a device of torch.
        root: where runs are, for `last` and `best`.
        width: of a nested network (ffn=matformer): 0.5, or one for each block. `net` is the dense model that this
            width is; without it, `net(ids, width=0.5)` computes the same.

    Returns:
        LoadedModel: `net` (the torch.nn.Module), `tokenizer`, `config`, `context`, `step`, `path`, `generate()`.

    Raises:
        CheckpointError: there is no valid checkpoint, or its weights do not fit its configuration.
        ConfigError: the device is not there, or a block does not have the width.

    Example:
        model = aptlab.load("last", device="cpu")
        ids = torch.tensor([model.tokenizer.encode("def main")])
        logits = model.net(ids).logits  # [1, 8, vocabulary]
    """
    from aptlab.device import resolve_torch_device
    from aptlab.restore.load import load_network, locate_checkpoint

    where = resolve_torch_device(device)
    return load_network(locate_checkpoint(ckpt, root=root), device=where, width=width)


def generate(
    model: LoadedModel | str | Path,
    prompts: str | Sequence[str | Messages] = "",
    *,
    max_new_tokens: int = 200,
    seed: int = 0,
    samples: int = 1,
    stop: Sequence[str] = (),
    batch: int = 16,
    chat: bool = False,
    device: str | torch.device | None = None,
    width: Width | None = None,
    draft: Width | None = None,
    draft_tokens: int = DRAFT_TOKENS,
    beams: int = 1,
    length_penalty: float = 1.0,
    **sampling: Unpack[SamplingOptions],
) -> list[GeneratedText]:
    """Continue one prompt or several; an encoder-decoder writes targets. What `aptlab generate` writes, in any batch.

    Args:
        model: a loaded model, or what `load` takes.
        prompts: a text, or a list of texts; an empty one starts a new document. In a list, a list of messages such as
            [{"role": "user", "content": "…"}] is written out by the tokenizer's chat template.
        max_new_tokens: per text; it ends earlier at the end-of-text token or a stop string.
        seed: of the first sample of each prompt; the next samples count on from it.
        samples: texts per prompt.
        stop: strings that end a text and are not part of it.
        batch: texts written at the same time.
        chat: texts are what a user says to a chat model, which answers.
        device: where a checkpoint is loaded to, `auto` by default; a loaded model stays where it is.
        width: of a nested network (ffn=matformer): 0.5, or one for each block.
        draft: a smaller width that drafts `draft_tokens` at a time, which the network then reads at once: texts of the
            same distribution, in fewer passes (speculative decoding). Those of temperature 0 are the same.
        draft_tokens: tokens drafted in a round.
        beams: of an encoder-decoder: hypotheses of a beam search, which samples nothing; 1 = none.
        length_penalty: of the search: a hypothesis is worth its log probability / tokens^length_penalty.
        **sampling: fields of SamplingRules: temperature (0.8; 0 is greedy), top_k, top_p, min_p, repetition_penalty,
            crossing.

    Returns:
        list[GeneratedText]: `prompt`, `text`, `tokens`, `seed`, `reason`; `str()` joins prompt and text. A keyboard
        interrupt ends the texts that are being written with the reason "interrupted", and gives no later ones.

    Raises:
        CheckpointError: as `load`.
        ConfigError: a keyword that does not exist or is out of range, a `device` for a model that is loaded already, or
            messages for a tokenizer that has no chat template.
        DataError: messages that the chat template refuses.
        AptlabError: a prompt that is longer than the model has positions, or logits that are not numbers.

    Example:
        (text,) = aptlab.generate("last", "The for statement", max_new_tokens=40, temperature=0.7, top_p=0.95)
        print(text, text.reason)
    """
    return open_model(model, device).generate(
        prompts,
        max_new_tokens=max_new_tokens,
        seed=seed,
        samples=samples,
        stop=stop,
        batch=batch,
        chat=chat,
        width=width,
        draft=draft,
        draft_tokens=draft_tokens,
        beams=beams,
        length_penalty=length_penalty,
        **sampling,
    )


def evaluate(
    model: LoadedModel | str | Path,
    eval: str = "lengths",
    *overrides: str | Iterable[str],
    out: str | Path | None = None,
    **values: Any,
) -> EvalResult:
    """Measure a trained model, as it is or with another position rule. The same as `aptlab eval`, which it prints as.

    Args:
        model: `last`, `best`, a run folder or a .ckpt file; or a loaded model, which is measured as it is in memory,
            on the device where it is (eval.json names the file it was loaded from, and says "in memory").
        eval: an option of the group: lengths, sliding, passkey, needle, ruler, harness (`aptlab ls eval`).
        *overrides: of `aptlab eval`, as in "rope=yarn", "rope.factor=8", "device=cpu".
        out: folder for the results, and to go on in where an evaluation of a checkpoint was broken off;
            None makes evals/<time> in the folder of the model's run.
        **values: what the option takes (`aptlab show eval=sliding`): stride=128 is "eval.stride=128".

    Returns:
        EvalResult: the folder, and eval.json as a dict.

    Raises:
        ConfigError: every problem of the request at once.
        CheckpointError: as `load`.

    Example:
        result = aptlab.evaluate("last", "sliding", "rope=yarn", "rope.factor=4", stride=16, tokens=512)
        print(result.values["lengths"][0]["ppl"])
    """
    from aptlab.commands.eval import read_eval_request

    loaded = model if isinstance(model, LoadedModel) else None
    args = [f"eval={eval}", *flatten_overrides(overrides)]
    if loaded is not None:
        refuse_model_overrides(args, loaded, out)
    args.append(format_override("ckpt", loaded.path if loaded is not None else model))
    if out is not None:
        args.append(format_override("out", out))
    request = read_eval_request([*args, *(format_override(f"eval.{key}", value) for key, value in values.items())])
    from aptlab.evals.runner import evaluate_checkpoint

    folder = evaluate_checkpoint(request.config, request.filled, loaded)
    from aptlab.runs.record import read_record

    return EvalResult(folder, read_record(folder / "eval.json", dict)[0])


def train(*overrides: str | Iterable[str]) -> Run:
    """Train a model and measure it, in this process. The same as `aptlab train`, which it prints as.

    `sys.argv`, `os.environ`, signal handlers, logging and warnings are afterwards what they were before. While it
    trains, SIGINT, SIGTERM and SIGHUP end it at an optimizer step, saved there. torch's random generator is left
    seeded. Sweeps (`aptlab train -m`) run each job in a process of its own and have no function here; loop over
    `train`.

    Args:
        *overrides: of `aptlab train`, as in "rope=yarn", "ckpt=last", "trainer.max_steps=200", one by one or in lists.

    Returns:
        Run: `path` (the run folder), `result` (losses, lengths, tokens per second), `metrics()`, `config`, `choices`.
        With several processes, only the first has a result for sure.

    Raises:
        ConfigError: every problem of the request at once, before anything is written.
        AptlabError: it was stopped by a signal (`Stopped`), or stopped itself (TrainingError).

    Example:
        run = aptlab.train("size=debug", "trainer=debug", "device=cpu", "logger=csv")
        print(run.path, run.result.metrics["val/loss"])
    """
    from aptlab.training.inside import train_inside_process

    return train_inside_process(flatten_overrides(overrides))


def build(*overrides: str | Iterable[str], node: str = "model") -> Any:
    """The network that `aptlab train` would begin with, or any other part of its configuration.

    Args:
        *overrides: of `aptlab train`, as in "size=debug", "rope=yarn", one by one or in lists.
        node: the part to build, by its key: model (the network), task, data, rope, optim, "callbacks.guard", … A part
            that its parent completes (attention, ffn, norm: `_partial_: true`) comes as a function of what is missing.

    Returns:
        The object. Weights are drawn from the configuration's `seed`, as in training; torch's own generator is left
        as it was.

    Raises:
        ConfigError: every problem of the configuration at once, a `node` that is not there or is null, or a network
            whose `vocab` only a tokenizer that has yet to be trained would know.

    Example:
        net = aptlab.build("size=debug", "rope=yarn", "rope.factor=8")
        rule = aptlab.build("rope=yarn", "rope.factor=8", node="rope")
        print(sum(weight.numel() for weight in net.parameters()), rule.inv_freq(64)[:3])
    """
    from aptlab.config import build as build_node
    from aptlab.config import check, compose

    config = compose("train", flatten_overrides(overrides))
    check(config)
    part = select_node(fill_vocabulary(config), node)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.cfg.seed)
        return build_node(part)


def open_model(model: LoadedModel | str | Path, device: str | torch.device | None) -> LoadedModel:
    """A model as it is, or out of its checkpoint. ConfigError for a `device` where the model is loaded already."""
    if not isinstance(model, LoadedModel):
        return load(model, device="auto" if device is None else device)
    if device is not None:
        raise ConfigError(
            f"device={device}: the model is loaded already, on {model.device}; leave it out, or load the model there: "
            f"aptlab.load({str(model.path)!r}, device={str(device)!r})"
        )
    return model


def refuse_model_overrides(args: Sequence[str], model: LoadedModel, out: str | Path | None) -> None:
    """ConfigError for what a model in memory decides itself, and for a folder with results of perhaps other weights."""
    keys = {arg.partition("=")[0].partition(".")[0].lstrip("+~") for arg in args}
    for key in ("ckpt", "device", "width"):
        if key in keys:
            raise ConfigError(f"{key}: the model is loaded already, from {model.path} on {model.device}; leave it out")
    if "out" in keys:
        raise ConfigError("out: give the folder as a keyword, as in out='results'")
    if out is not None and Path(out).expanduser().is_dir() and any(Path(out).expanduser().iterdir()):
        raise ConfigError(
            f"out={out} holds results already, and a model in memory may differ from theirs; give a new folder"
        )


def flatten_overrides(overrides: Iterable[str | Iterable[str]]) -> list[str]:
    """One list of the strings given one by one or in lists. ConfigError for anything else."""
    found: list[str] = []
    for item in overrides:
        found += [item] if isinstance(item, str) else item
    for text in found:
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is no override; give strings, as in 'rope.factor=8'")
        if text.startswith("-"):
            raise ConfigError(f"{text}: there are no flags here, only overrides such as 'rope.factor=8'")
    return found


def format_override(key: str, value: Any) -> str:
    """`key=value` in the grammar of overrides, strings quoted."""
    return f"{key}={format_value(value)}"


def format_value(value: Any) -> str:
    """A plain Python value as an override writes it. ConfigError for one that is none."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple | range):
        return "[" + ",".join(map(format_value, value)) + "]"
    raise ConfigError(f"{value!r} is no plain value; give a number, a string, true, false, None, a list or a dict")


def fill_vocabulary(config: Config) -> Any:
    """The configuration's values, with `vocab` from the tokenizer where it is null and the tokenizer needs no text."""
    from aptlab.config import build as build_node

    if config.cfg.vocab is None and config.cfg.tokenizer is not None:
        with contextlib.suppress(LookupError):  # where a part needs it, `select_node` says so
            tokenizer = build_node(config.cfg.tokenizer).prepare(refuse_texts, key="", folder=Path())
            config = config.replaced({"vocab": tokenizer.vocab_size})
    return config.cfg


def refuse_texts() -> Any:
    """The training text of a tokenizer that nobody has."""
    raise LookupError("no text")


def select_node(cfg: Any, node: str) -> Any:
    """The configuration of a part. ConfigError where there is none, or where it lacks a vocabulary."""
    found: Any = cfg
    for depth, name in enumerate(node.split(".")):
        path = ".".join(node.split(".")[: depth + 1])
        if not isinstance(found, Mapping) or name not in found:
            names = found.keys() if isinstance(found, Mapping) else ()
            raise ConfigError(f"node={node}: there is no {path}{suggest_option(name, map(str, names))}")
        found = found[name]
    if found is None:
        raise ConfigError(f"node={node}: it is null, so there is nothing to build; choose an option, as in {node}=…")
    if not isinstance(found, Mapping):
        raise ConfigError(f"node={node} is the value {found!r}, which is there already: nothing is built from it")
    if cfg.vocab is None and node.split(".")[0] in ("model", "task"):
        raise ConfigError(
            "vocab=null: this tokenizer has to be trained first, which nothing here does; give its size, as in "
            "vocab=4096"
        )
    return found
