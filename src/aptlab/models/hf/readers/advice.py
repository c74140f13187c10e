"""What an export tells its user about other programs, and the refusal of forms that keep no rule. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from aptlab.errors import ConfigError
from aptlab.models.hf.family import FAMILIES
from aptlab.models.hf.readers.base import Config, Reader
from aptlab.models.hf.readers.rules import is_measured, list_measured_layouts, name_rules

PAGE = "docs/other-runtimes.md"
COMPARE = (
    "continue one prompt longer than the original context with it and with aptlab generate temperature=0: "
    "the texts must begin alike"
)


def describe_readers(config: Config, readers: Sequence[Reader]) -> list[str]:
    """Two lines at most: who keeps the rule of this folder, and who reads another one without an error."""
    rules = name_rules(config)
    verdicts = {reader: reader.judge(rules) for reader in readers if reader.default}
    keeping = [reader.name for reader, verdict in verdicts.items() if verdict.outcome == "kept"]
    # In a layout that was not measured a reader may take other code, so what it does there is likely, not known.
    likely, where = ("", "") if is_measured(rules, config) else ("likely ", f" (measured in {_name_layouts(rules)})")
    kept = f"{likely or 'are '}kept by {', '.join(keeping) or 'no reader'}{where}"
    lines = [f"positions ({', '.join(rules)}) {kept}; see {PAGE}"]
    silent = [
        f"{reader.name} ({verdict.note or verdict.outcome}{_name_form(reader, rules)})"
        for reader, verdict in verdicts.items()
        if verdict.outcome in ("dropped", "partly")
    ]
    return lines + (
        [f"warning: {likely}read as something else, without an error, by {', '.join(silent)}"] if silent else []
    )


def _name_layouts(rules: tuple[str, ...]) -> str:
    """`the Llama layout`: where the rules were measured."""
    titles = dict.fromkeys(FAMILIES[kind].title for kind in list_measured_layouts(rules))
    return f"the {' and the '.join(titles)} layout"


def _name_form(reader: Reader, rules: tuple[str, ...]) -> str:
    """Words for a form of the reader's own that keeps the rules."""
    kept = reader.form is not None and reader.judge(rules, own=True).outcome == "kept"
    return f"; for={reader.name} keeps it" if kept else ""


def write_form(config: Config, reader: Reader) -> tuple[Config, list[str]]:
    """The config.json that the reader honours, and notes; ConfigError where it would compute something else."""
    assert reader.form is not None
    rules = name_rules(config)
    verdict = reader.judge(rules, own=True)
    if verdict.outcome not in ("kept", "not run"):
        raise ConfigError(
            f"for={reader.name} cannot be written: {', '.join(reader.versions)} would not keep {', '.join(rules)}: "
            f"{verdict.note}; {reader.way_out}"
        )
    notes = [f"written for {', '.join(reader.versions)}"]
    if verdict.outcome == "not run":
        notes = [f"warning: not measured with {', '.join(reader.versions)}: {verdict.note}; {COMPARE}"]
    elif not is_measured(rules, config):
        title = FAMILIES[config["model_type"]].title
        where = _name_layouts(rules)
        notes = [
            f"warning: {reader.name} was measured with these positions in {where}, not in the {title} one; {COMPARE}"
        ]
    return reader.form(config), notes
