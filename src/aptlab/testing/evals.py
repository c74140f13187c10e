"""Laws of evals. Override `evaluation`, and `make_data` where the eval reads a data module."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.evals.base import Eval, EvalContext, EvalFolder, Measurement
from aptlab.models import Decoder
from aptlab.runs.journal import NAME
from aptlab.testing.contract import Contract
from aptlab.testing.tiny import make_tiny_decoder

TRAINED_CONTEXT = 32


class EvalContract(Contract):
    """Laws of one eval: it is plain options, it measures the same twice, and it leaves the network as it was.

    evaluation       an instance, with options small enough for a network of a few thousand weights
    trained_context  tokens that the network counts as trained with

    `make_network` and `make_data` give what is measured; override them where the eval needs another network, or a data
    module (without one, asking for it is an AssertionError).
    """

    evaluation: Eval
    trained_context: int = TRAINED_CONTEXT

    def make_network(self) -> Decoder:
        """A small decoder over bytes, with seeded weights."""
        return make_tiny_decoder(vocab=ByteTokenizer().vocab_size)

    def make_data(self) -> Any:
        """The data module."""
        raise AssertionError("the eval asks for a data module; override make_data, or say reads_data = False")

    def test_it_has_a_name(self) -> None:
        name = getattr(type(self.evaluation), "name", None)
        assert isinstance(self.evaluation, Eval), "it is derived from aptlab.evals.Eval"
        assert isinstance(name, str), "`name: ClassVar[str]` is set on the class"
        assert name.isidentifier(), f"name {name!r} must be one word: folders and files are named for it"

    def test_it_is_a_frozen_dataclass_of_plain_options(self) -> None:
        kind = type(self.evaluation)
        assert "__dataclass_fields__" in vars(kind), f"{kind.__name__} is decorated with @dataclass(frozen=True)"
        for item in dataclasses.fields(self.evaluation):
            try:
                setattr(self.evaluation, item.name, None)
            except dataclasses.FrozenInstanceError:
                continue
            raise AssertionError(f"{item.name} can be set; decorate the class with @dataclass(frozen=True)")
        assert_plain(self.evaluation.describe_options(), "describe_options()")
        options = {item.name: getattr(self.evaluation, item.name) for item in dataclasses.fields(self.evaluation)}
        assert kind(**options) == self.evaluation, "the same options make an equal eval"

    def test_its_options_are_read_without_torch(self) -> None:
        kind = type(self.evaluation)
        code = f"import sys, {kind.__module__}; assert 'torch' not in sys.modules, 'torch is imported at the top'"
        paths = json.dumps([path for path in sys.path if path])
        ended = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"importing {kind.__module__}: {ended.stderr}"

    def test_rows_are_plain_and_files_are_written(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = self.measure(self.make_context(folder=Path(folder)))
            assert isinstance(found, Measurement), f"measure returns a Measurement, not {type(found).__name__}"
            assert found.rows, "there are no rows"
            for name, rows in found.rows.items():
                assert all(isinstance(row, Mapping) for row in rows), f"rows[{name!r}] holds something that is no dict"
                assert_plain([dict(row) for row in rows], f"rows[{name!r}]")
            assert_plain(dict(found.facts), "facts")
            assert all(isinstance(table, str) for table in found.tables), "a table is no text"
            assert all(isinstance(text, str) for text in found.files.values()), "a file is no text"
            for name, draw in found.figures.items():
                draw(Path(folder) / name)
                assert (Path(folder) / name).stat().st_size > 0, f"nothing was drawn into {name}"

    def test_the_same_twice(self) -> None:
        first, second = (self.measure(self.make_context()) for _ in range(2))
        assert_same_rows(second.rows, first.rows, "measured again", rtol=0.0)

    def test_the_network_is_left_as_it_was(self) -> None:
        for training in (True, False):
            context = self.make_context()
            net = context.net.train(training)
            before = {name: value.clone() for name, value in net.state_dict().items()}
            device = next(net.parameters()).device
            self.measure(context)
            assert net.training is training, f"training={training} became {net.training}"
            assert next(net.parameters()).device == device, "the network stays on another device"
            changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
            assert not changed, f"weights changed: {', '.join(changed)}"

    def test_a_broken_journal_goes_on_to_the_same_rows(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            whole = self.measure(self.make_context(folder=Path(folder)))
            path = Path(folder) / NAME
            if not path.exists():
                return  # an eval without a journal begins anew
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: 1 + len(lines) // 2]) + lines[-1][:-3])
            resumed = self.measure(self.make_context(folder=Path(folder)))
            # Rows that are read beside others may differ in the last bits.
            assert_same_rows(resumed.rows, whole.rows, "after a broken journal", rtol=1e-4)
            again = self.measure(self.make_context(folder=Path(folder)))
            assert_same_rows(again.rows, resumed.rows, "out of a full journal", rtol=0.0)

    def make_context(self, *, folder: Path | None = None) -> EvalContext:
        """What the eval is given: the tiny network on the CPU."""
        made: list[Any] = []

        def open_data() -> Any:
            if not made:
                made.append(self.make_data())
            return made[0]

        return EvalContext(
            net=self.make_network(),
            tokenizer=ByteTokenizer(),
            device="cpu",
            precision="32-true",
            trained_context=self.trained_context,
            title="tiny",
            open_data=open_data,
            folder=EvalFolder(folder, {"weights": "tiny"}),
        )

    def measure(self, context: EvalContext) -> Measurement:
        """Check, then measure, as a training run does."""
        self.evaluation.check(context)
        return self.evaluation.measure(context)


def assert_plain(value: Any, what: str) -> None:
    """Assert that JSON keeps the value: no tensors, arrays or objects."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} holds something that is not plain: {error}") from None


def assert_same_rows(got: Any, expected: Any, law: str, *, rtol: float) -> None:
    """Assert that two trees of plain values are equal, numbers within `rtol`; NaN is equal to NaN."""
    if isinstance(expected, Mapping):
        assert got.keys() == expected.keys(), f"{law}: {sorted(got)} instead of {sorted(expected)}"
        for key in expected:
            assert_same_rows(got[key], expected[key], f"{law}: {key}", rtol=rtol)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        assert len(got) == len(expected), f"{law}: {len(got)} rows instead of {len(expected)}"
        for number, (row, expected_row) in enumerate(zip(got, expected, strict=True)):
            assert_same_rows(row, expected_row, f"{law}[{number}]", rtol=rtol)
    elif isinstance(expected, float) and isinstance(got, float):
        same = math.isclose(got, expected, rel_tol=rtol) or (math.isnan(got) and math.isnan(expected))
        assert same, f"{law}: {got} instead of {expected}"
    else:
        assert got == expected, f"{law}: {got!r} instead of {expected!r}"
