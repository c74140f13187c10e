"""The search that a request means for one checkpoint: rule, spaces, seeds, baselines. No torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aptlab.config import build
from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import NTK, Linear, LongRoPE, LongRoPE2, Rope, Rotation, YaRN
from aptlab.search.engine import SearchStart
from aptlab.search.seeds import (
    build_v1_space,
    build_v2_seeds,
    build_v2_space,
    compute_divisors,
    compute_published_factors,
    list_critical_pairs,
)
from aptlab.search.space import Factors


@dataclass(frozen=True)
class SearchProblem:
    """`rule` with its factors missing, for heads of which `head_dim` dims rotate; lengths in tokens."""

    rule: Any
    head_dim: int
    original_len: int
    target: int

    @property
    def scale(self) -> float:
        return self.target / self.original_len

    @property
    def kind(self) -> str:
        """LongRoPE or LongRoPE2."""
        return type(self.rule).__name__

    @property
    def objective(self) -> str:
        """The published one."""
        return "needle_ppl" if isinstance(self.rule, LongRoPE2) else "ppl"

    @property
    def known(self) -> dict[str, Factors]:
        """Factors of PI, NTK and YaRN."""
        return compute_published_factors(
            base=self.rule.base, head_dim=self.head_dim, original_len=self.original_len, scale=self.scale
        )

    @property
    def rule_of(self) -> Callable[[Sequence[float]], Any]:
        """Factors -> rule; can be sent to other processes."""
        return partial(replace_factors, self.rule)

    def starts(self, step: float) -> list[SearchStart]:
        """LongRoPE: all pairs, from PI, NTK and YaRN. LongRoPE2: one start per pair that may be the critical one.

        rope.critical_dim leaves one such pair.
        """
        pairs = self.head_dim // 2
        if not isinstance(self.rule, LongRoPE2):
            space = build_v1_space(pairs=pairs, scale=self.scale, step=step)
            return [SearchStart(space, tuple(dict.fromkeys(space.nearest(factors) for factors in self.known.values())))]
        critical_dim = self.rule.critical_dim
        candidates = list_critical_pairs(base=self.rule.base, pairs=pairs, length=self.original_len)
        firsts = candidates if critical_dim is None else [critical_dim]
        spaces = [build_v2_space(first, pairs=pairs, scale=self.scale, step=step) for first in firsts]
        return [SearchStart(space, tuple(build_v2_seeds(space))) for space in spaces]

    def found(self, factors: Factors, first: int) -> Any:
        """The rule with the factors that were found from pair `first` on."""
        named = {"critical_dim": first} if isinstance(self.rule, LongRoPE2) else {}
        return dataclasses.replace(self.rule, long=factors, **named)

    def baselines(self) -> dict[str, Rope]:
        """Rules that need no search, each with its own temperature, by the name in tables."""
        same: dict[str, Any] = {
            "base": self.rule.base,
            "layout": self.rule.layout,
            "temperature_on": self.rule.temperature_on,
        }
        rules = {
            "linear": Linear(factor=self.scale, **same),
            "ntk": NTK(factor=self.scale, **same),
            "yarn": YaRN(factor=self.scale, original_len=self.original_len, **same),
        }
        if self.rule.fraction != 1:
            rules = {name: self._of_a_part(rule, same) for name, rule in rules.items()}
        return {**rules, f"{self.kind.lower()} guess": self.rule}  # its own factors where none are given

    def _of_a_part(self, rule: Rope, same: dict[str, Any]) -> Rope:
        """A rule for whole heads as one that rotates a part of each, at every length."""
        factors = compute_divisors(rule, self.rule.base, self.head_dim)
        return LongRoPE(
            factor=self.scale,
            original_len=self.original_len,
            short=factors,
            long=factors,
            attention_factor=math.sqrt(rule.temperature),
            fraction=self.rule.fraction,
            **same,
        )


def replace_factors(rule: Any, factors: Sequence[float]) -> Any:
    """The rule with these divisors for long sequences."""
    return dataclasses.replace(rule, long=tuple(factors))


def make_search_problem(node: Mapping[str, Any], trained: Any, *, head_dim: int, target: int) -> SearchProblem:
    """The problem of a rope node, filled in, and the rule that the checkpoint was trained with.

    ConfigError where there is nothing to search.
    """
    if str(node["_target_"]).rpartition(".")[2] not in ("LongRoPE", "LongRoPE2"):
        raise ConfigError(
            f"rope={str(node['_target_']).rpartition('.')[2]} has no factors to search; use rope=longrope or "
            "rope=longrope2"
        )
    if not isinstance(trained, Rotation):
        raise ConfigError(
            f"the checkpoint was trained with {type(trained).__name__}, whose frequencies have no base to rescale; use "
            "a checkpoint with rope=standard or another rule with a base"
        )
    original = int(node["original_len"])
    if target <= original:
        raise ConfigError(
            f"target={target} must be longer than the trained context of {original}; use target={2 * original} or more"
        )
    rule = build(
        {
            **node,
            "factor": target / original,
            "target_len": target,
            "long": None,
            "short": None,
        },
        "rope",
    )
    pairs, rotary_pairs = len(rule.inv_freq(head_dim)), sum(f > 0 for f in trained.inv_freq(head_dim))
    if pairs != rotary_pairs:
        raise ConfigError(
            f"the checkpoint was trained with {type(trained).__name__}, which rotates {rotary_pairs} pairs of a head, "
            f"and rope.fraction={rule.fraction:g} rotates {pairs}; search for a checkpoint with rope=standard or "
            "rope=partial"
        )
    return SearchProblem(rule, 2 * pairs, original, target)
