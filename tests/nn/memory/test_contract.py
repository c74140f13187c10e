"""Every tier keeps the laws of memories."""

from __future__ import annotations

from functools import partial

import pytest

from aptlab.nn.memory import InfiniMemory, KNNMemory, TitansContextMemory, TitansGateMemory, XLMemory
from aptlab.testing import MemoryContract

TITANS = {"segment": 6, "chunk": 3, "persist": 2, "max_step": 0.1}


class Laws(MemoryContract):
    """All of them; a compiler takes its time."""

    test_it_compiles_as_one_graph = pytest.mark.slow(MemoryContract.test_it_compiles_as_one_graph)


class TestXL(Laws):
    factory = partial(XLMemory, mem_len=7)
    by_pass = True


class TestXLOfSameLength(Laws):
    factory = partial(XLMemory, mem_len=7, same_length=True)


class TestInfini(Laws):
    factory = partial(InfiniMemory, segment=5)


class TestInfiniDelta(Laws):
    factory = partial(InfiniMemory, segment=5, update="delta")


class TestKNN(Laws):
    factory = partial(KNNMemory, segment=5, size=8, neighbors=3, scale=4.0, layers=None)


class TestTitansMAG(Laws):
    factory = partial(TitansGateMemory, **TITANS)
    gain = 2.0


class TestTitansMAC(Laws):
    factory = partial(TitansContextMemory, **TITANS)
    gain = 2.0
