"""What `aptlab.testing` gives to other projects is enough to measure a model of theirs."""

from __future__ import annotations

import subprocess
import sys

import torch

import aptlab.testing
from aptlab.testing import LAWS, NotOffered, Subject, decode_in_chunks, make_tiny_decoder, measure_law


class Mine(Subject):
    """An adapter as short as it can be: one pass, and one with a cache."""

    project, version, name = "mine", "1", "standard"
    net = make_tiny_decoder()

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        del length  # no rule here goes by it
        with torch.no_grad():
            return self.net(tokens_BT, positions=positions, segments=segments).logits

    def cached(self, tokens_BT, chunks):
        return decode_in_chunks(self.net, tokens_BT, chunks)

    def cast(self, dtype):
        raise NotOffered(f"no {dtype} here")


def test_a_short_adapter_is_measured_by_every_law():
    found = {law.name: measure_law(Mine(), law).status for law in LAWS}
    offered = ("cached", "batched", "shift", "left pad", "packed")
    assert found == {law.name: "pass" if law.name in offered else "n/a" for law in LAWS}


def test_every_name_that_is_promised_is_there():
    assert all(hasattr(aptlab.testing, name) for name in aptlab.testing.__all__)


def test_the_import_brings_no_trainer_and_no_pytest():
    code = "import aptlab.testing, sys; sys.exit(bool({'lightning', 'pytest', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
