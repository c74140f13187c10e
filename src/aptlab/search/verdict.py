"""What a search has shown: whether its factors beat every rule without a search, by its own objective. No torch.

A hidden number of seven digits that does not begin with 0 is one of 9·10^6, so whoever knows only that digits come
loses ln(9·10^6) nats on it, spread over its tokens. Scores that are no better rank nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aptlab.errors import AptlabError
from aptlab.search.baselines import Losses, average_losses, score_losses
from aptlab.search.needles import DIGITS, SearchSample
from aptlab.search.objectives import SearchObjective

WAYS_OUT = "train it further, take a smaller target=…, or use search.objective=ppl"
FOUND = "search"  # the name of what was found, among those of the rules without a search


@dataclass(frozen=True)
class SearchVerdict:
    """Scores by rule, what was found among them, and what they are worth.

    guessing  mean loss of a hidden number's tokens by guessing, in nats; None where the objective hides none
    informed  whether any rule finds numbers better than by guessing; true where none are hidden
    better    rules without a search that score as well as what was found, or better; the best first
    """

    scores: Mapping[str, float]
    guessing: float | None
    informed: bool
    better: tuple[str, ...]

    @property
    def word(self) -> str:
        """better, not better, or no basis."""
        return "no basis" if not self.informed else "not better" if self.better else "better"


def judge_search(
    losses: Mapping[str, Losses], objective: SearchObjective, samples: Sequence[SearchSample]
) -> SearchVerdict:
    """The verdict on `losses` by rule, with the found one under `FOUND`, measured on `samples`."""
    scores = {name: score_losses(objective, pairs) for name, pairs in losses.items()}
    others = sorted((score, name) for name, score in scores.items() if name != FOUND)
    better = tuple(name for score, name in others if score <= scores[FOUND])
    guessing = compute_guessing_loss(samples) if objective.needles else None
    least = min(average_losses(pairs)[0] for pairs in losses.values())
    return SearchVerdict(scores, guessing, informed=guessing is None or least < guessing, better=better)


def check_basis(
    losses: Mapping[str, Losses], objective: SearchObjective, samples: Sequence[SearchSample]
) -> str | None:
    """What to say before a search by hidden numbers that no rule without a search finds better than by guessing.

    AptlabError where nothing else is measured: every score of such a search would rank noise.
    """
    if not objective.needles:
        return None
    guessing, least = compute_guessing_loss(samples), min(average_losses(pairs)[0] for pairs in losses.values())
    if least < guessing:
        return None
    found = (
        f"hidden numbers cost {least:.3f} nats per token at best, and {guessing:.3f} by guessing: this model finds none"
    )
    if objective.reads_text:
        return f"{found}, so half of every score is noise, and without a better one no option is written; {WAYS_OUT}"
    raise AptlabError(f"no basis for a search: {found}, so no score would rank anything; {WAYS_OUT}")


def compute_guessing_loss(samples: Sequence[SearchSample]) -> float:
    """Mean loss of a hidden number's tokens where nothing but its form is known, in nats: ln(9·10^6) over them."""
    whole = math.log(9 * 10 ** (DIGITS - 1))
    counts = [answer.stop - answer.start for sample in samples if (answer := sample.answer) is not None]
    return math.fsum(whole / count for count in counts) / len(counts)


def describe_verdict(verdict: SearchVerdict, *, ckpt: object, option: str, scale: float) -> str:
    """The last line of a search: the command that uses what was found, or why there is none."""
    if not verdict.informed:
        return (
            f"no basis: no rule finds hidden numbers better than by guessing ({verdict.guessing:.3f} nats per token), "
            f"so these scores rank nothing and no option is written; {WAYS_OUT}"
        )
    if verdict.better:
        name = verdict.better[0]
        rule = f"rope={name} rope.factor={scale:g}" if " " not in name else f"the {name}"
        return (
            f"not better: {name} scores {verdict.scores[name]:.4f} without a search, what was found "
            f"{verdict.scores[FOUND]:.4f}; keep {rule}, or search on with other seeds, more samples or iterations"
        )
    return f"use it   aptlab eval ckpt={ckpt} rope={option}"
