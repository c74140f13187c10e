"""The smoothing layers keep the contract that ships to third parties, and a layer that breaks it is caught."""

from functools import partial

import pytest
import torch

from aptlab.nn.smooth import Gate, LeftSpin, LeftSpinSeed, MemorySmooth, Plain, Smooth
from aptlab.testing import SmoothContract


class TestPlain(SmoothContract):
    factory = Plain
    plain_limit = Plain


class TestLeftSpin(SmoothContract):
    factory = LeftSpin
    plain_limit = partial(LeftSpin, alpha=0.0)


class TestLeftSpinThrough(SmoothContract):
    factory = partial(LeftSpin, gate=Gate(grad="through"))


class TestSoftclip(SmoothContract):
    factory = partial(LeftSpin, gate=Gate(kind="softclip"))


class TestMemory(SmoothContract):
    factory = MemorySmooth
    plain_limit = partial(MemorySmooth, alpha=0.0)


class TestLeftSpinSeed(SmoothContract):
    factory = LeftSpinSeed


class Stateful(Smooth):
    """Breaks the contract: shrinks by the mean of the batch and counts its calls."""

    def __init__(self, dim, *, layer, site):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, u, delta, context):
        self.calls.add_(1)
        return u + delta / (1 + delta.mean() + self.calls)


def test_a_layer_that_breaks_the_contract_is_caught():
    contract = SmoothContract()
    contract.factory = Stateful
    for law, message in (
        (contract.test_a_row_does_not_see_its_batch, "alone == in the batch: values differ by"),
        (contract.test_a_token_changes_nothing_before_it, "causal over tokens: values differ by"),
        (contract.test_cached_decoding_is_the_full_forward, "cached == full: values differ by"),
        (contract.test_forward_changes_no_state, "the same input twice"),
    ):
        with pytest.raises(AssertionError, match=message):
            law()
