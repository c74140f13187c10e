"""The contract of evals finds what it is there to find."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from aptlab.evals import Eval, Measurement
from aptlab.testing import EvalContract

COUNT = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Mean(Eval):
    """The mean logit of one text."""

    name: ClassVar[str] = "mean"
    reads_data = False
    length: int = 8

    def measure(self, context):
        with context.borrow_network() as net, torch.no_grad():
            value = net(torch.arange(self.length)[None]).logits.mean().item()
        return Measurement(rows={"means": [{"value": value}]})


class Nameless(Mean):
    name = "two words"


class Tensors(Mean):
    def measure(self, context):
        return Measurement(rows={"means": [{"value": torch.ones(())}]})


class Random(Mean):
    def measure(self, context):
        return Measurement(rows={"means": [{"value": float(next(COUNT))}]})


class Untidy(Mean):
    def measure(self, context):
        context.net.eval()
        return Measurement(rows={"means": [{"value": 0.0}]})


class Broken(Mean):
    def measure(self, context):
        with context.open_journal(self.describe_options()) as journal:
            first = len(journal.records)
            for number in range(first, 4):
                journal.append({"number": number})
        return Measurement(rows={"means": [{"value": first}]})


class Reading(Mean):
    def measure(self, context):
        return Measurement(rows={"means": [{"value": context.open_data().fingerprint}]})


def contract(evaluation: Eval) -> EvalContract:
    made = EvalContract()
    made.evaluation = evaluation
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "kind", "message"),
    [
        ("it_has_a_name", Nameless, "'two words' must be one word"),
        ("it_is_a_frozen_dataclass_of_plain_options", Tensors, "is decorated with @dataclass"),
        ("its_options_are_read_without_torch", Mean, "torch is imported at the top"),
        ("rows_are_plain_and_files_are_written", Tensors, r"rows\['means'\] holds something that is not plain"),
        ("rows_are_plain_and_files_are_written", Reading, "the eval asks for a data module; override make_data"),
        ("the_same_twice", Random, r"measured again: means\[0\]: value: \d\.0 instead of \d\.0"),
        ("the_network_is_left_as_it_was", Untidy, "training=True became False"),
        ("a_broken_journal_goes_on_to_the_same_rows", Broken, "after a broken journal: means"),
    ],
)
def test_an_eval_that_breaks_a_law_is_told_which(law, kind, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract(kind()), f"test_{law}")()


def test_an_eval_in_order_passes_the_laws_of_measuring():
    for law in ("it_has_a_name", "rows_are_plain_and_files_are_written", "the_same_twice"):
        getattr(contract(Mean()), f"test_{law}")()
