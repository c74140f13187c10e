"""Every bias keeps the contract that ships to third parties, and a bias that breaks it is caught."""

from functools import partial

import pytest
import torch

from aptlab.nn.positions.bias import ALiBi, CoPE, Kerple, LearnedBias, NoBias, ScoreBias, T5Bias
from aptlab.testing.bias import BiasContract


class TestNone(BiasContract):
    factory = NoBias


class TestALiBi(BiasContract):
    factory = ALiBi


class TestT5(BiasContract):
    factory = T5Bias


class TestT5Small(BiasContract):
    factory = partial(T5Bias, buckets=5, max_distance=9)


class TestKerpleLog(BiasContract):
    factory = Kerple


class TestKerplePower(BiasContract):
    factory = partial(Kerple, kernel="power")


class TestLearned(BiasContract):
    factory = partial(LearnedBias, max_distance=6)


class TestCoPE(BiasContract):
    factory = partial(CoPE, max_pos=4)


class Absolute(ScoreBias):
    """Breaks the contract: it knows where the text begins and how many keys there are, and declares the opposite."""

    def __init__(self, *, heads, head_dim, layer):
        super().__init__(heads=heads)

    def formula(self):
        return lambda head, distance: distance / distance.max()

    def forward(self, queries, keys):
        product = queries.unsqueeze(2) * keys.unsqueeze(1) * (keys.numel() + keys.amax()) / 1000
        return product.unsqueeze(1) * torch.ones(self.heads, 1, 1)


def test_a_bias_that_breaks_the_contract_is_caught():
    contract = BiasContract()
    contract.factory = Absolute
    for law, message in (
        (contract.test_relative_flag_is_what_is_measured, "relative=True, and a joint shift changes the bias by"),
        (contract.test_a_later_key_changes_nothing, "a later key changes nothing: values differ by"),
        (contract.test_a_row_does_not_see_its_batch, "alone == in the batch: values differ by"),
        (contract.test_flex_attention_adds_the_same, "score_mod == the dense bias"),
        (contract.test_left_padding_changes_nothing, "left padding == none: values differ by"),
    ):
        with pytest.raises(AssertionError, match=message):
            law()
