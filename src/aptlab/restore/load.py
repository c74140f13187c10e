"""A trained network out of its checkpoint: what eval, generate and export begin with."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from aptlab.data.tokenizers import Tokenizer, restore_tokenizer
from aptlab.errors import CheckpointError, ConfigError
from aptlab.nn.width import FULL, Width, format_width
from aptlab.restore.generation import TextWishes, WrittenTexts, open_continuations, open_targets
from aptlab.sample import (
    DRAFT_TOKENS,
    GeneratedText,
    Prompt,
    SamplingOptions,
    make_prompts,
    make_sampling_rules,
)
from aptlab.sample.targets import make_source_codec
from aptlab.sample.texts import OnText

if TYPE_CHECKING:
    import torch

    from aptlab.data.tokenizers import Messages
    from aptlab.models import Decoder
    from aptlab.sample.speculative import Draft

log = logging.getLogger("aptlab")

PREFIX = "net."  # LanguageTask keeps the network under this name
CLASSIFICATION = "aptlab.tasks.classification.ClassificationTask"  # by name: what restores a network imports no task


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and how it came to be.

    net     in eval mode, on the device asked for; a `torch.nn.Module`
    config  the resolved configuration of the run, a plain dict
    step    optimizer steps taken
    path    the checkpoint's file
    meta    the whole "aptlab" entry of the checkpoint
    width   of the nested network that this one is cut out of; None = whole
    """

    net: Decoder
    config: dict[str, Any]
    step: int
    path: Path
    meta: dict[str, Any]
    width: Width | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back, as in training. CheckpointError for one that this version does not know."""
        return restore_tokenizer(self.meta["tokenizer"])

    @property
    def context(self) -> int:
        """Tokens that the network was trained at."""
        return int(self.config["context"])

    def describe_width(self) -> list[str]:
        """The line that says which width this is, or which ones a nested network has; none for any other network."""
        if self.width is not None:
            hidden = self.net.shape.hidden
            units = hidden if isinstance(hidden, int) else list(hidden)
            return [f"width    {format_width(self.width)}: {units} hidden units"]
        if len(self.net.widths) < 2:
            return []
        smaller = ", ".join(map(format_width, self.net.widths[1:]))
        return [f"width    the whole model; width=… cuts it to one of {smaller}"]

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.net.parameters()).device

    def generate(
        self,
        prompts: str | Sequence[str | Messages] = "",
        *,
        max_new_tokens: int = 200,
        seed: int = 0,
        samples: int = 1,
        stop: Sequence[str] = (),
        batch: int = 16,
        chat: bool = False,
        width: Width | None = None,
        draft: Width | None = None,
        draft_tokens: int = DRAFT_TOKENS,
        beams: int = 1,
        length_penalty: float = 1.0,
        **sampling: Unpack[SamplingOptions],
    ) -> list[GeneratedText]:
        """Continue one prompt or several: `samples` texts of each, in order; see `aptlab.generate`."""
        asked = make_prompts(prompts, chat=chat)
        for name, value in (("max_new_tokens", max_new_tokens), ("samples", samples), ("batch", batch)):
            if value < 1:
                raise ConfigError(f"{name}={value} must be 1 or more")
        if isinstance(stop, str) or "" in stop:
            raise ConfigError(f"stop={stop!r}: give a list of strings, none of them empty, as in stop=['\\n\\n']")
        wishes = TextWishes(
            rules=make_sampling_rules(sampling),
            max_new_tokens=max_new_tokens,
            stop=stop,
            batch=batch,
            beams=beams,
            length_penalty=length_penalty,
            widths=(width, draft, draft_tokens),
        )
        written = self.open_texts([(prompt, seed + sample) for prompt in asked for sample in range(samples)], wishes)
        for line in written.notes:
            log.warning(line.removeprefix("warning: "))
        return list(written.texts)

    def open_texts(
        self, jobs: Sequence[tuple[Prompt, int]], wishes: TextWishes, on_text: OnText | None = None
    ) -> WrittenTexts:
        """Begin to write a text for each prompt and seed; AptlabError and ConfigError before the first token."""
        if reads_source(self.net):
            net: Any = self.net
            codec = make_source_codec(self.tokenizer, self.config)
            return open_targets(net, codec, jobs, wishes, context=self.context, on_text=on_text)
        width, draft, draft_tokens = wishes.widths
        model, drafter = open_widths(self, width, draft, draft_tokens)
        return open_continuations(
            model.net, self.tokenizer, jobs, wishes, context=self.context, on_text=on_text, draft=drafter
        )


def reads_source(net: object) -> bool:
    """Whether a network writes targets for sources; one of another package, which has no such word, continues texts."""
    return bool(getattr(net, "reads_source", False))


def require_decoder(loaded: LoadedModel, asks: str) -> LoadedModel:
    """The model, if it continues texts; ConfigError for an encoder-decoder. `asks` says who needs a decoder."""
    if reads_source(loaded.net):
        raise ConfigError(
            f"{asks} takes a model that continues texts, and {loaded.path} is an encoder-decoder (model=apt); keep the "
            "checkpoint and use aptlab generate, or aptlab eval with eval=seq2seq"
        )
    return loaded


def open_widths(
    loaded: LoadedModel, width: Width | None, draft: Width | None, tokens: int
) -> tuple[LoadedModel, Draft | None]:
    """The model at a width, and a smaller width of it that drafts `tokens` at a time; None: whole, and no drafter.

    All weights but those of the cut layers are shared. ConfigError for widths that the model does not have, and for a
    drafter that is no smaller than what it drafts for.
    """
    if loaded.width is not None:
        raise ConfigError(
            f"this model is the width {format_width(loaded.width)} of another one and has no width itself; load that "
            "one without width"
        )
    model = narrow_model(loaded, width)
    if draft is None:
        return model, None
    from aptlab.models.edit import extract_width
    from aptlab.sample.speculative import Draft

    drafter = extract_width(loaded.net, draft, share=True).eval()
    if count_all_hidden(drafter) >= count_all_hidden(model.net):
        raise ConfigError(
            f"draft={format_width(draft)} is no smaller than the width {format_width(width or FULL)} that it would "
            "draft for; use a smaller one"
        )
    return model, Draft(drafter, tokens)


def count_all_hidden(net: Decoder) -> int:
    """Hidden units of all blocks."""
    return sum(net.shape.count_hidden(layer) for layer in range(net.shape.depth))


def load_network(ckpt: str | Path, *, device: torch.device | str = "cpu", width: Width | None = None) -> LoadedModel:
    """Build the network that a checkpoint describes and fill it with its weights.

    width  of a nested network: the dense model that this width is (`narrow_model`); None = the network as trained

    `ckpt` is a checkpoint, a run folder, `last` or `best`. The file is verified against its manifest and read with
    weights_only=True; the network is built by `aptlab.config.build`, which refuses what does not belong in its place.
    Raises CheckpointError or ConfigError.
    """
    from aptlab.checkpoint import load_checkpoint

    path = locate_checkpoint(ckpt)
    loaded = narrow_model(restore_network(load_checkpoint(path), path=path), width)
    loaded.net.to(device)
    return loaded


def narrow_model(loaded: LoadedModel, width: Width | None) -> LoadedModel:
    """The model at a width, dense and as small as that width is; None: as it was loaded.

    Its configuration builds such a model: `size.hidden` of the width, nothing nested. Its other weights are those of
    `loaded`, not copies. Raises ConfigError for a width that a block does not have.
    """
    if width is None:
        return loaded
    from aptlab.models.edit import extract_width
    from aptlab.restore.width import narrow_config

    net = extract_width(loaded.net, width, share=True).eval()
    hidden = net.shape.hidden
    config = narrow_config(loaded.config, hidden if isinstance(hidden, int) else list(hidden))
    return dataclasses.replace(loaded, net=net, config=config, meta={**loaded.meta, "config": config}, width=width)


def locate_checkpoint(ckpt: str | Path, *, root: str | Path = "outputs") -> Path:
    """The file meant by `ckpt`; see `aptlab.checkpoint.choose_checkpoint`, which `aptlab train` asks too."""
    from aptlab.checkpoint import choose_checkpoint

    return Path(choose_checkpoint(ckpt, root=root))


def restore_network(state: dict[str, Any], *, path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The same from a checkpoint dict that is in memory; `path` is named in errors."""
    from torch import is_tensor

    from aptlab.config import build
    from aptlab.restore.outline import make_outline
    from aptlab.restore.upgrade import upgrade_checkpoint

    state = upgrade_checkpoint(state)
    found, weights = state.get("aptlab"), state.get("state_dict", {})
    meta: dict[str, Any] = found if isinstance(found, dict) else {}
    config: dict[str, Any] = meta["config"] if isinstance(meta.get("config"), dict) else {}
    refuse_classifier(config, path)
    whole = isinstance(config.get("model"), dict) and isinstance(meta.get("vocab"), int)
    if not whole or not isinstance(weights, dict) or not all(map(is_tensor, weights.values())):
        raise CheckpointError(
            f"{path} holds no aptlab configuration; give a checkpoint written by `aptlab train` or `aptlab import`"
        )
    node = {**config["model"], "vocab": int(meta["vocab"])}
    outline = make_outline(node, weights, path)
    if outline is not None:
        refuse_other_weights(outline, weights, path)
    net = build(node, "model")
    fill_weights(net, weights, path)
    return LoadedModel(
        net=net.to(device).eval(),
        config=config,
        step=int(meta.get("step", 0)),
        path=path,
        meta=meta,
    )


def refuse_classifier(config: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for a network that gives rows a class."""
    from aptlab.config import derives_from

    task = config.get("task")
    if isinstance(task, Mapping) and derives_from(str(task.get("_target_", "")), CLASSIFICATION):
        raise CheckpointError(
            f"{path} holds a network that gives rows a class, and no language model; what its run measured is in its "
            "folder (evals/), and `aptlab train` goes on with it"
        )


def fill_weights(net: Decoder, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Copy a task's weights into its network; every name and size must fit, or CheckpointError says which do not."""
    net.load_state_dict(refuse_other_weights(net, weights, path))


def refuse_other_weights(net: Decoder, weights: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The network's own part of a task's weights; CheckpointError names those that are missing, left over or differ."""
    network_weights = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
    expected = net.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in network_weights]
    problems += [f"{name} is not part of this model" for name in network_weights if name not in expected]
    problems += [
        f"{name} has sizes {list(network_weights[name].shape)}, the model has {list(weight.shape)}"
        for name, weight in expected.items()
        if name in network_weights and network_weights[name].shape != weight.shape
    ]
    if problems:
        shown = "\n".join(problems[:8] + ([f"… and {len(problems) - 8} more"] if len(problems) > 8 else []))
        raise CheckpointError(
            f"the weights in {path} do not fit the model of its own configuration:\n{shown}\n"
            "was it trained with another version of the model's code? Install that version, or train again"
        )
    return network_weights


def keep_fitting_weights(
    weights: dict[str, torch.Tensor], fresh: dict[str, torch.Tensor], learned: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Old weights for a model that may know positions in another way, by name.

    weights  of the checkpoint
    fresh    of the new model
    learned  prefixes of what position methods learn themselves: kept where name and shape are those of the new model,
             else begun anew; everything else is kept as it is
    """
    fitting = {
        name: weight
        for name, weight in weights.items()
        if not name.startswith(learned) or (name in fresh and fresh[name].shape == weight.shape)
    }
    return {name: weight for name, weight in fresh.items() if name.startswith(learned)} | fitting
