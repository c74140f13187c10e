"""Old words of a configuration and the new ones: tables, and what is said where an old one is written.

To rename again, add a line to the table of its kind. An old word is looked up only where it means nothing today.
"""

from __future__ import annotations

from collections.abc import Iterable

# "group=option" or "key" (with all keys below it) -> the word of today.
RENAMED = {
    "data=stdlib": "source=stdlib",
    "data=text": "source=text",
    "data=hub": "source=hub",
    "logger=none": "logger=csv",
    "smooth=scaled": "smooth=residual_scale",
    "data.source": "source",
    "data.parts": "source.parts",
    "data.field": "source.field",
    "data.on_bad": "source.on_bad",
    "data.config": "source.config",
    "data.limit": "source.limit",
    "data.revision": "source.revision",
    "data.document_mask": "data.rows.document_mask",
    "data.mix": "data.rows",
    "data.short": "data.rows.short",
    "data.packed": "data.rows.packed",
    "data.original_len": "data.rows.original_len",
}


# Parameter of the parts of a group, also of parts inside them (`rope.inner.law`) -> the parameter of today.
PARAMETERS = {
    "attention.reach": "window",
    "callbacks.on_full": "on_error",
    "model.beside": "positions",
    "rope.law": "temperature_law",
}
# Module of classes that keep their names -> the module of today.
MODULES = {
    "aptlab.nn.rope": "aptlab.nn.positions.rope",
    "aptlab.nn.bias": "aptlab.nn.positions.bias",
    "aptlab.nn.embed": "aptlab.nn.positions.absolute",
    "aptlab.nn.linear": "aptlab.nn.attention",
    "aptlab.data.mixed": "aptlab.data.rows",
    "aptlab.data.split": "aptlab.data.store.split",
    "aptlab.commands.sweep": "aptlab.sweep",
    "aptlab.commands.sweep.launchers": "aptlab.sweep.launchers",
}
# Class with another name -> the class of today.
TARGETS = {
    "aptlab.nn.place.Beside": "aptlab.nn.positions.Positions",
    "aptlab.nn.reach.Sliding": "aptlab.nn.window.SlidingWindow",
    "aptlab.callbacks.progress.Progress": "aptlab.callbacks.progress.TrainProgress",
    "aptlab.data.mixed.Mix": "aptlab.data.rows.Mixed",
    "aptlab.data.mixed.MixedData": "aptlab.data.module.TextData",
    "aptlab.nn.smooth.ScaledResidual": "aptlab.nn.smooth.ResidualScale",
    "aptlab.data.sources.Files": "aptlab.data.sources.TextFiles",
    "aptlab.data.tokenizers.Bytes": "aptlab.data.tokenizers.ByteTokenizer",
    "aptlab.data.tokenizers.File": "aptlab.data.tokenizers.TokenizerFile",
    "aptlab.evals.rules.Harness": "aptlab.evals.harness.Harness",
    "aptlab.evals.rules.LengthLoss": "aptlab.evals.lengths.LengthLoss",
    "aptlab.evals.rules.Needle": "aptlab.evals.needle.NeedleRetrieval",
    "aptlab.evals.rules.Passkey": "aptlab.evals.passkey.PasskeyRetrieval",
    "aptlab.evals.rules.Ruler": "aptlab.evals.ruler.Ruler",
    "aptlab.evals.rules.Sliding": "aptlab.evals.sliding.SlidingLoss",
    "aptlab.search.settings.Settings": "aptlab.search.settings.SearchSettings",
    "aptlab.commands.sweep.Search": "aptlab.sweep.OptunaSearch",
    "aptlab.commands.sweep.launchers.Joblib": "aptlab.sweep.launchers.JoblibLauncher",
    "aptlab.commands.sweep.launchers.Process": "aptlab.sweep.launchers.ProcessLauncher",
    "aptlab.commands.sweep.launchers.Submitit": "aptlab.sweep.launchers.SubmititLauncher",
}


def find_new_parameter(key: str) -> str | None:
    """The key of today for one with an old parameter, at any depth below its group, or None.

    >>> find_new_parameter("rope.inner.law")
    'rope.inner.temperature_law'
    """
    group, *rest = key.split(".")
    for number, part in enumerate(rest):
        if new := PARAMETERS.get(f"{group}.{part}"):
            return ".".join([group, *rest[:number], new, *rest[number + 1 :]])
    return None


def find_new_target(target: str) -> str | None:
    """The dotted name of today for a class that had another one, or None."""
    module, _, name = target.rpartition(".")
    return TARGETS.get(target) or (f"{MODULES[module]}.{name}" if module in MODULES else None)


def find_new_word(word: str) -> str | None:
    """The word of today for an old `group=option` or `key`, or None.

    >>> find_new_word("data.source.files")
    'source.files'
    """
    if word in RENAMED:
        return RENAMED[word]
    parts = word.partition("=")[0].split(".")
    for length in range(len(parts), 0, -1):
        if new := RENAMED.get(".".join(parts[:length])):
            return ".".join([new, *parts[length:]])
    return None


def find_target_rename(target: object) -> str | None:
    """The message for the old name of a class, or None where it was never another."""
    new = find_new_target(target) if isinstance(target, str) else None
    return f"{target} is {new} now" if new else None


def find_renamed_problem(word: str) -> str | None:
    """The message for an old word, or None where the word was never another."""
    new = find_new_word(word) or find_new_parameter(word)
    return f"{word}: is {new} now" if new else None


def translate_overrides(texts: Iterable[str]) -> list[str]:
    """Overrides as an earlier aptlab took them, in the words of today."""
    return [_translate(text) for text in texts]


def _translate(text: str) -> str:
    sign = text[: len(text) - len(text.lstrip("+~"))]
    key, equals, value = text[len(sign) :].partition("=")
    if new := RENAMED.get(f"{key}={value}"):
        return sign + new
    return f"{sign}{find_new_word(key) or key}{equals}{value}"
