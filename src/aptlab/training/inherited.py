"""Which overrides of a checkpoint a new command goes on with. No torch.

They are text out of a file that somebody may have sent: what says where things go is left out and named in one line,
and nothing in them reads the environment. What a run's own value was at such a place, the checkpoint's configuration
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.config import refuse_interpolations
from aptlab.config.destinations import KEPT, finds_destination
from aptlab.config.escaped import find_interpolations, is_pure
from aptlab.config.overrides import Override, parse_overrides
from aptlab.config.search_path import OptionIndex, read_option_index
from aptlab.config.sweeps import format_override
from aptlab.errors import ConfigError
from aptlab.redact import HIDDEN, redact_overrides


@dataclass(frozen=True)
class Inherited:
    """The overrides that are kept, and the keys of those that are not.

    left_out  they say where things go
    hidden    their values were secrets, which no checkpoint has
    """

    kept: list[str]
    left_out: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def describe(self, *, folder: bool) -> list[str]:
        """Lines for the user; `folder`: the run goes on in its own folder, so `run_dir` is no loss."""
        keys = [key for key in self.left_out if not (folder and key == "run_dir")]
        again = "it" if len(keys) == 1 else "them"
        where = (
            f"  left out, for a checkpoint does not say where things go: {', '.join(keys)}; give {again} again if that "
            "is what you want"
        )
        lost = [f"  {key} was hidden in the checkpoint; give it again if it is needed" for key in self.hidden]
        return [*([where] if keys else []), *lost]


def inherit_overrides(stored: Sequence[str], new: Sequence[str], config: Mapping[str, Any] | None) -> Inherited:
    """The stored overrides that a new command line goes on with.

    stored  of the checkpoint, without those that the new ones replace
    new     of the command line: what it sets is not spoken of
    config  of the checkpoint, as stored

    ConfigError for one that reads the environment, the clock or a file, where the configuration has no value for it.
    """
    index, given = read_option_index(), {arg.lstrip("+~").partition("=")[0] for arg in new}
    kept, left_out, hidden = [], [], []
    for text in stored:
        items, problems = parse_overrides([text])
        key = text.lstrip("+~").partition("=")[0]
        if HIDDEN in text:
            hidden.append(key)
        elif problems:  # told where it is composed
            kept.append(text)
        elif is_destination(items[0], index):
            left_out.append(key)
        elif key not in given or reads_configuration_alone(items[0]):
            kept.append(text if reads_configuration_alone(items[0]) else fill_recorded_value(items[0], config))
    return Inherited(kept, tuple(key for key in dict.fromkeys(left_out) if key not in given), tuple(hidden))


def list_lasting_words(typed: Sequence[str]) -> tuple[str, ...]:
    """The typed overrides that no checkpoint of their run keeps, secrets hidden: a command to go on needs them again.

    `run_dir` and `paths.root` are not among them: a run goes on in its own folder.
    """
    index = read_option_index()
    lasting = []
    for text, shown in zip(typed, redact_overrides(typed)):
        items, problems = parse_overrides([text])
        if problems or items[0].key in ("run_dir", "paths.root"):
            continue
        if HIDDEN in shown or is_destination(items[0], index):
            lasting.append(shown)
    return tuple(lasting)


def is_destination(item: Override, index: OptionIndex) -> bool:
    """Whether an override says where things go, or chooses an option of such a group that has no file here."""
    path = (item.package or item.key).replace("/", ".")
    if not item.is_group(index):
        return finds_destination(item.key, item.value)
    if path.partition(".")[0] not in KEPT or item.kind == "delete":
        return False
    names = item.value if isinstance(item.value, list) else [item.value]
    return path != item.key or any(str(name) not in index.groups.get(item.key, {}) for name in names)


def reads_configuration_alone(item: Override) -> bool:
    """Whether every interpolation in an override reads the configuration, and nothing of this machine."""
    return all(is_pure(text) for _, text in find_interpolations(item.value))


def fill_recorded_value(item: Override, config: Mapping[str, Any] | None) -> str:
    """The override with the value that the run had, in place of what would be read here."""
    node: Any = config or {}
    for part in item.key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, str | list) or HIDDEN in str(node):
        raise ConfigError(
            f"{item.key}: the checkpoint has {item.text.partition('=')[2]!r}, which reads this machine's environment, "
            f"clock or files; give {item.key}=<value> again"
        )
    refuse_interpolations(node, item.key)
    if isinstance(node, list):
        return f"{item.key}=[{','.join(format_override('', str(part)).removeprefix('=') for part in node)}]"
    return format_override(item.key, node)
