"""What a program that reads our folders does with a rule of positions. No torch.

Every verdict was measured by benchmarks/runtimes.py, which compares logits below and beyond the trained length;
docs/other-runtimes.md is the table that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Config = dict[str, Any]
Outcome = Literal["kept", "partly", "dropped", "refused", "not run"]
WORST: tuple[Outcome, ...] = ("dropped", "partly", "refused", "not run", "kept")  # what a user must know first


class Verdict(NamedTuple):
    """What became of a rule.

    kept     logits are equal at every length      partly   not all of it is read: `note` says what is not
    dropped  read as another rule, unsaid          refused  an error: `note` is its reason
    not run  could not be measured: `note` is why
    """

    outcome: Outcome
    note: str = ""


KEPT = Verdict("kept")


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """One program.

    name      as in `for=`
    versions  packages that were measured, "name version"
    default   by rule: what it does with the folder that `aptlab export` writes unasked
    own       by rule: what it does with the folder that `for=<name>` writes; {} = it has no form of its own
    form      config.json -> the config.json that it reads best; None = it has no form of its own
    tokens    special tokens that it does not do without; where a tokenizer has none they are named as eos
    way_out   what to do where its own form does not keep the rule
    """

    name: str
    versions: tuple[str, ...]
    default: Mapping[str, Verdict]
    own: Mapping[str, Verdict] = field(default_factory=dict)
    form: Callable[[Config], Config] | None = None
    tokens: tuple[str, ...] = ()
    way_out: str = "export for=transformers5 and run it there"

    def judge(self, rules: tuple[str, ...], *, own: bool = False) -> Verdict:
        """The worst verdict of several rules that a model has at once; one without a verdict is not run."""
        table = self.own if own else self.default
        found = [table.get(rule, Verdict("not run", f"{rule} was not measured")) for rule in rules]
        return min(found, key=lambda verdict: WORST.index(verdict.outcome))
