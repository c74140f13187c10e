"""The rules that are compared, each for one trained length and one factor. Legend: L trained length, s factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aptlab.nn.positions.rope import (
    NTK,
    Growth,
    IRope,
    IRopePairs,
    Linear,
    Llama3,
    LongRoPE,
    LongRoPE2,
    NTKLiu,
    Rope,
    Standard,
    YaRN,
)
from aptlab.search.problem import SearchProblem

BASE = 10_000.0


@dataclass(frozen=True)
class Search:
    """Which rule's factors are searched, and by which objective (a name of `aptlab search`)."""

    rule: type[LongRoPE] | type[LongRoPE2]
    objective: str

    def problem(self, *, original_len: int, factor: int, head_dim: int) -> SearchProblem:
        rule = self.rule(base=BASE, original_len=original_len, factor=factor)
        return SearchProblem(rule, head_dim, original_len, original_len * factor)


@dataclass(frozen=True)
class Method:
    """One row of the table.

    search   factors to find on the network, else the rule is a formula
    mixed    short windows keep the original rotation in fine-tuning (LongRoPE2, section 3.3); nothing without it
    trained  the rule of the networks it is for: the plain one, or one that needs no change beyond the trained length
    """

    name: str
    search: Search | None = None
    mixed: bool = False
    trained: type[Rope] = Standard

    @property
    def found_by(self) -> str:
        """The method whose search finds the factors of this one."""
        return self.name.removesuffix("_mixed")


PPL, NEEDLE = "ppl", "needle_ppl"
METHODS = {
    method.name: method
    for method in (
        Method("none"),
        Method("linear"),
        Method("ntk"),
        Method("ntk_liu"),
        Method("yarn"),
        Method("yarn_ratio"),
        Method("llama3"),
        Method("longrope", Search(LongRoPE, PPL)),
        Method("longrope2", Search(LongRoPE2, NEEDLE)),
        Method("longrope2_ppl", Search(LongRoPE2, PPL)),
        Method("longrope2_mixed", Search(LongRoPE2, NEEDLE), mixed=True),
        Method("irope"),
        Method("irope_pairs"),
        Method("irope_trained", trained=IRope),
    )
}


def formula(name: str, *, original_len: int, factor: int) -> Rope:
    """The rule of a method that needs no search."""
    same: dict[str, Any] = {"base": BASE}
    stretch = {**same, "factor": factor}
    known = {**stretch, "original_len": original_len}
    match name:
        case "none":
            return Standard(**same)
        case "linear":
            return Linear(**stretch)
        case "ntk":
            return NTK(**stretch)
        case "ntk_liu":
            return NTKLiu(**known)
        case "yarn" | "yarn_ratio":
            return YaRN(**known, ramp="ratio" if name == "yarn_ratio" else "index")
        case "llama3":
            return Llama3(**known, low=1.0, high=4.0)
        case "irope":
            # Llama 4 at this length; no qk-norm, because the networks were trained without one.
            growth = Growth(floor=original_len)
            return IRope(inner=Standard(**same), interval=4, chunk=original_len, growth=growth, qk_norm=False)
        case "irope_pairs":
            return IRopePairs()
    raise KeyError(name)
