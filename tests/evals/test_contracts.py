"""Every eval of ours keeps the contract that others inherit."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np

from aptlab.data.rows.windows import Windows
from aptlab.data.store.cache import TokenSide
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.evals import DocumentLoss, LengthLoss, NeedleRetrieval, PasskeyRetrieval, Ruler, SlidingLoss, WidthLoss
from aptlab.nn.attention import LinearAttention
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.testing import EvalContract, make_tiny_decoder
from tests.evals.making import BODIES


class Data:
    """What evals ask of a data module: a text, windows of it, and its fingerprint."""

    fingerprint = "bodies"

    def __init__(self) -> None:
        encoded = [np.array(ByteTokenizer().encode(body), dtype=np.uint16) for body in BODIES * 4]
        offsets = np.cumsum([0, *map(len, encoded)])
        self.side = TokenSide(np.concatenate(encoded), offsets, np.diff(offsets))
        self.store = SimpleNamespace(val=self.side)

    def windows(self, context, *, multiples, tokens):
        return Windows(self.side, context=context, multiples=multiples, tokens=tokens)


class OverText(EvalContract):
    """A contract with a text."""

    def make_data(self):
        return Data()


class TestLengths(OverText):
    evaluation = LengthLoss(multiples=(1, 2), tokens=128)


class TestSliding(OverText):
    evaluation = SlidingLoss(lengths=(16, 32), stride=8, tokens=96)


class TestDocuments(OverText):
    evaluation = DocumentLoss(window=16, tokens=200, longest=100)

    def make_network(self):
        return make_tiny_decoder(vocab=ByteTokenizer().vocab_size, attention=LinearAttention)


class TestWidths(OverText):
    evaluation = WidthLoss(widths=(1.0, 0.25, (1.0, 0.125, 0.5)), tokens=96)

    def make_network(self):
        nested = partial(SwiGLU, nested=MatFormer())
        return make_tiny_decoder(vocab=ByteTokenizer().vocab_size, ffn=nested)


class TestPasskey(EvalContract):
    evaluation = PasskeyRetrieval(lengths=(256,), depths=(0.0, 1.0), samples=2)


class TestNeedle(OverText):
    evaluation = NeedleRetrieval(lengths=(320,), depths=(0.5,), samples=2)


class TestRuler(OverText):
    evaluation = Ruler(lengths=(320,), tasks=("niah_single_1", "vt"), samples=1, haystack="noise")
