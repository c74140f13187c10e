"""What contracts share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor


class Contract:
    """A set of laws, one `test_…` method each.

    config  the component as a config node with `_target_`, or None; with it the config builds an equal component
    """

    config: ClassVar[dict[str, Any] | None] = None


def assert_close(got: Tensor, expected: Tensor, law: str, *, atol: float) -> None:
    """Assert that two tensors differ by `atol` at most; the message says the law and the difference."""
    assert got.shape == expected.shape, f"{law}: shapes {list(got.shape)} and {list(expected.shape)} differ"
    assert bool(got.isfinite().all()), f"{law}: a value is not finite"
    difference = (got.double() - expected.double()).abs().max().item() if got.numel() else 0.0
    assert difference <= atol, f"{law}: values differ by {difference:.3g}, allowed is {atol:g}"


def assert_equal(got: Tensor, expected: Tensor, law: str) -> None:
    """Assert that two tensors are equal, bit for bit."""
    assert got.dtype == expected.dtype, f"{law}: dtypes {got.dtype} and {expected.dtype} differ"
    assert torch.equal(got, expected), f"{law}: values differ"
