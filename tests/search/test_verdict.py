"""What a search says of its factors: better, not better, or measured on what nobody knew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aptlab.errors import AptlabError
from aptlab.search.needles import SearchSample
from aptlab.search.objectives import MixedObjective, NeedleObjective, PerplexityObjective
from aptlab.search.verdict import check_basis, compute_guessing_loss, describe_verdict, judge_search


def sample(tokens_of_answer: int) -> SearchSample:
    tokens = np.zeros(32, dtype=np.int64)
    return SearchSample(tokens, tokens, slice(32 - tokens_of_answer, 32), tokens > 0)


SAMPLES = [sample(7), sample(7)]
GUESS = math.log(9e6) / 7  # 2.288: seven digits, the first of them no 0


def judge(objective=None, **answers: float):
    """Losses of rules by the loss of the answer, which is that of the text too."""
    losses = {name.replace("_", " "): [(loss, loss)] * 2 for name, loss in answers.items()}
    return judge_search(losses, objective or NeedleObjective(), SAMPLES)


def test_guessing_costs_the_logarithm_of_what_may_be_hidden():
    assert compute_guessing_loss(SAMPLES) == pytest.approx(GUESS)
    assert compute_guessing_loss([sample(7), sample(1)]) == pytest.approx((GUESS + math.log(9e6)) / 2)


@pytest.mark.parametrize(
    ("answers", "word", "better"),
    [
        ({"linear": 2.0, "ntk": 1.5, "yarn": 1.4, "search": 1.3}, "better", ()),
        ({"linear": 1.2, "ntk": 1.1, "yarn": 1.4, "search": 1.3}, "not better", ("ntk", "linear")),
        ({"linear": 2.0, "yarn": 1.3, "search": 1.3}, "not better", ("yarn",)),
        ({"linear": 3.0, "yarn": 2.9, "search": GUESS}, "no basis", ()),
        ({"linear": 3.0, "yarn": 2.2, "search": 2.9}, "not better", ("yarn",)),
    ],
)
def test_only_what_beats_every_rule_without_a_search_is_better(answers, word, better):
    found = judge(**answers)
    assert (found.word, found.better) == (word, better)


def test_an_objective_without_needles_is_ranked_whatever_its_losses_are():
    found = judge(PerplexityObjective(), linear=5.0, yarn=4.0, search=3.9)
    assert (found.guessing, found.word) == (None, "better")


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ({"yarn": 1.4, "search": 1.3}, "use it   aptlab eval ckpt=run rope=mine"),
        (
            {"ntk": 1.2, "search": 1.3},
            "not better: ntk scores 1.2000 without a search, what was found 1.3000; keep rope=ntk rope.factor=8, or",
        ),
        (
            {"longrope2_guess": 1.2, "search": 1.3},
            "not better: longrope2 guess scores 1.2000 without a search, what was found 1.3000; keep the longrope2 gue",
        ),
        ({"yarn": 3.0, "search": 2.9}, "no basis: no rule finds hidden numbers better than by guessing (2.288 nats"),
    ],
)
def test_the_last_line_gives_the_command_only_for_what_is_better(answers, line):
    said = describe_verdict(judge(**answers), ckpt="run", option="mine", scale=8.0)
    assert said.startswith(line)
    assert ("use it" in said) == line.startswith("use it")


def test_a_search_by_needles_alone_needs_one_rule_that_beats_guessing():
    losses = {"linear": [(3.0, 5.0)], "yarn": [(2.5, 5.0)]}
    with pytest.raises(
        AptlabError, match=r"^no basis for a search: .* 2\.500 nats .*, and 2\.288 by guessing.*smaller"
    ):
        check_basis(losses, NeedleObjective(), SAMPLES)
    warning = check_basis(losses, MixedObjective(), SAMPLES)
    assert warning is not None
    assert "half of every score is noise" in warning
    assert check_basis(losses, PerplexityObjective(), SAMPLES) is None
    assert check_basis({**losses, "ntk": [(2.2, 5.0)]}, NeedleObjective(), SAMPLES) is None
