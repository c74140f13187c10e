"""Laws that every component keeps, as base classes of tests for yours.

    from aptlab.testing import RopeContract

    class TestMine(RopeContract):
        rule = Mine(base=10_000.0)

pytest finds `TestMine` and runs every law on it. The checks are plain asserts with messages; pytest is not imported.

A whole model, of this project or another, is measured behind an adapter, a `Subject` (see `aptlab.testing.invariance`):

    from aptlab.testing import LAWS, measure

    found = {law.name: measure(subject, law) for law in LAWS}
"""

from aptlab.testing.bias import BiasContract
from aptlab.testing.contract import Contract
from aptlab.testing.invariance import LAWS, Law, Measured, NotOffered, Subject, measure
from aptlab.testing.rope import RopeContract
from aptlab.testing.smooth import SmoothContract
from aptlab.testing.tiny import decode, random_tokens, tiny_decoder

__all__ = [
    "LAWS",
    "BiasContract",
    "Contract",
    "Law",
    "Measured",
    "NotOffered",
    "RopeContract",
    "SmoothContract",
    "Subject",
    "decode",
    "measure",
    "random_tokens",
    "tiny_decoder",
]
