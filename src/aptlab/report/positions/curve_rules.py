"""The rules whose curves a figure shows, out of overrides with several values; and the lengths they are drawn for.

No torch and no numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from aptlab.config import Config, build, check, compose, read_signature
from aptlab.config.files import read_config_file
from aptlab.config.search_path import read_option_index
from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.positions.rope import Rope, ScaledRotation

SHORTEST = 16  # tokens below which there is nothing to see
LABEL = 48  # characters of a curve's name
LAYERS = 24  # layers that are asked for their rule

MOST = 8  # curves that colours tell apart


def compose_curves(jobs: Sequence[Sequence[str]], shared: Sequence[str]) -> list[Config]:
    """The checked configuration of every job; one ConfigError with the problems of all."""
    configs, problems = [], []
    for job in jobs:
        try:
            config = compose("plot", [*job, *shared])
            check(config)
            configs.append(config)
        except AptlabError as error:
            problems += [text for text in str(error).splitlines() if text != "the config has problems:"]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return configs


def build_curve_rule(config: Config) -> Rope:
    """The rule of one curve; ConfigError where there is none."""
    if config.resolved().get("rope") is None:
        raise ConfigError("rope=null: there is no rule to plot; choose one: aptlab ls rope")
    return build(config.cfg.rope)


def drop_unsupported_values(jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Jobs without the values that their option does not have, and a line on each; equal jobs count once.

    `rope=standard,yarn rope.factor=8` sets the factor of yarn. A value that no option takes stays, and is refused.
    """
    options = [find_rope_option(job) for job in jobs]
    takes = {option: list_rope_parameters(option) for option in dict.fromkeys(options)}
    found: list[list[str]] = []
    notes: list[str] = []
    for job, option in zip(jobs, options, strict=True):
        supported = []
        for item in job:
            key = item.partition("=")[0].lstrip("+~").partition(".")[2].partition(".")[0]
            if not key or key in takes[option] or not any(key in others for others in takes.values()):
                supported.append(item)
            else:
                notes.append(f"rope={option} has no {key}; it is drawn without")
        if supported not in found:
            found.append(supported)
    return found, list(dict.fromkeys(notes))


def label_curves(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What to call each curve: its option, then the values that were given several times."""
    labels: dict[str, set[str]] = {}
    for item in itertools.chain(*jobs):
        labels.setdefault(item.partition("=")[0], set()).add(item)
    found = []
    for job in jobs:
        values = [item for item in job if len(labels[item.partition("=")[0]]) > 1 and not item.startswith("rope=")]
        words = [find_rope_option(job), *(item.partition(".")[2].replace("'", "") for item in values)]
        text = " ".join(words)
        found.append(text if len(text) <= LABEL else text[: LABEL - 1] + "…")
    return found


def find_rope_option(job: Sequence[str]) -> str:
    """The rope that a job chooses."""
    chosen = [item.partition("=")[2] for item in job if item.partition("=")[0].lstrip("+") == "rope"]
    return chosen[-1].strip("'\"") if chosen else "standard"


def list_rope_parameters(option: str) -> set[str]:
    """Keys that an option takes; none for an option that does not exist, which composing will tell."""
    known = read_option_index().groups["rope"].get(option)
    target = read_config_file(known.path).get("_target_") if known else None
    found = read_signature(target) if isinstance(target, str) else None
    return set(found.parameters) if found else set()


def choose_target_length(*, original: int, length: int | None, head_dim: int, rules: Sequence[Rope]) -> int:
    """The target length; ConfigError where lengths contradict each other or a head has no pairs."""
    scaled = [rule for whole in rules for rule in list_scaled_rules(whole)]
    if head_dim % 2:
        raise ConfigError(f"head_dim={head_dim}: pairs need an even number of dims")
    if original < SHORTEST:
        raise ConfigError(f"original={original}: there is nothing to see below {SHORTEST} tokens")
    for rule in scaled:
        if rule.original_len != original:
            raise ConfigError(
                f"rope.original_len={rule.original_len} contradicts original={original}; give the trained context "
                f"once, as original={rule.original_len}"
            )
        if rule.target_len is not None and length is not None and rule.target_len > length:
            raise ConfigError(
                f"rope.target_len={rule.target_len} lies beyond length={length}; use length={rule.target_len} or more"
            )
    targets = [rule.target_len or round(rule.stretch * original) for rule in scaled]
    if length is None:
        return max(4 * original, *targets) if targets else 4 * original
    if length < original:
        raise ConfigError(
            f"length={length} is shorter than original={original}; the target context is the trained one or longer"
        )
    return length


def list_scaled_rules(rule: Rope) -> list[ScaledRotation]:
    """Rules of all layers that stretch a trained context."""
    layers = dict.fromkeys(rule.for_layer(layer).rule for layer in range(LAYERS))
    return [layer_rule for layer_rule in layers if isinstance(layer_rule, ScaledRotation)]


def parse_bases(value: Any) -> tuple[float, ...]:
    """Rising bases from `1e3,1e4` or a list; each must be larger than 1."""
    try:
        found = sorted({float(word) for word in split_words(value)})
    except ValueError:
        raise ConfigError(f"base={value}: expects numbers, as in base=1e4,5e5") from None
    if not found or not all(1 < base < 1e30 for base in found):
        raise ConfigError(f"base={value}: bases are numbers larger than 1, as in base=1e4,5e5")
    if len(found) > MOST:
        raise ConfigError(f"base: {len(found)} bases; a figure shows {MOST} at most")
    return tuple(found)


def split_words(value: Any) -> list[str]:
    """The words of a list, or of a text with commas and perhaps brackets and quotes."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return [word.strip().strip("'\"") for word in text.strip("[] ").split(",") if word.strip()]
