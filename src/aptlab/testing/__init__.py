"""Laws that every component keeps, as base classes of tests for yours.

    from aptlab.testing import RopeContract

    class TestMine(RopeContract):
        rule = Mine(base=10_000.0)

pytest finds `TestMine` and runs every law on it. The checks are plain asserts with messages; pytest is not imported.

A whole model, of this project or another, is measured behind an adapter, a `Subject` (see `aptlab.testing.invariance`):

    from aptlab.testing import LAWS, measure_law

    found = {law.name: measure_law(subject, law) for law in LAWS}
"""

from aptlab.testing.bias import BiasContract
from aptlab.testing.callbacks import CallbackContract
from aptlab.testing.contract import Contract
from aptlab.testing.curriculum import CurriculumContract
from aptlab.testing.data import RowsContract, SourceContract
from aptlab.testing.evals import EvalContract
from aptlab.testing.ffn import FeedForwardContract
from aptlab.testing.invariance import LAWS, Law, LawResult, NotOffered, Subject, measure_law
from aptlab.testing.memory import MemoryContract
from aptlab.testing.rope import RopeContract
from aptlab.testing.smooth import SmoothContract
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

__all__ = [
    "LAWS",
    "BiasContract",
    "CallbackContract",
    "Contract",
    "CurriculumContract",
    "EvalContract",
    "FeedForwardContract",
    "Law",
    "LawResult",
    "MemoryContract",
    "NotOffered",
    "RopeContract",
    "RowsContract",
    "SmoothContract",
    "SourceContract",
    "Subject",
    "decode_in_chunks",
    "make_random_tokens",
    "make_tiny_decoder",
    "measure_law",
]
