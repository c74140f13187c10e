"""Gradients of few directions, with what is left over kept for the next step. Legend: M rows, N columns, R rank."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, cast
from zlib import crc32

import torch
from torch import Tensor, nn

from aptlab.callbacks.gradients.base import GradientCallback, Weights, check_limits
from aptlab.limits import NonNegativeInt, PositiveInt
from aptlab.shown import count_nouns

log = logging.getLogger("aptlab")
SMALLEST = 1e-30  # of the mean square of a row, so that a row of zeros is divided by something


class LowRankGradients(GradientCallback):
    """Matrices' gradients G [M, N] become their projection to `rank` directions; the rest waits for the next step.

        G <- G + E          Y = (A Aᵀ)^power A Omega,   A = G, or with `balance` each row of G over its rms
        Q = qr(Y), [M, R]   G^ = Q Qᵀ G          E <- G - G^ (with `error_feedback`; else the rest is lost)

    Omega [N, R] is normal, a function of seed, step and matrix, so equal on all ranks and after a resume. The range
    finder is that of Halko et al. 2011 (arXiv:0909.4061, algorithm 4.4, orthonormalised at each product); projection
    with error feedback is that of PowerSGD (Vogels et al. 2019, arXiv:1905.13727), which compresses what is sent, and
    of GaLore (Zhao et al. 2024, arXiv:2403.03507), whose optimizer lives in the subspace. Here neither is saved: it is
    a filter of gradients, which costs time and, for E, the memory of the matrices in float32.

    What it has of the "DBC-DAC" filter of the APT-Transformer project: rows balanced, a subspace, few directions. What
    differs: the subspace is that of the gradient and not a random one, singular values are kept and not squared, rows
    are balanced by their rms and not by their sum, which may be near zero, only to find Q, and it runs once a step.

    rank    directions that are kept; a matrix of fewer rows or columns stays as it is, as do vectors
    every   optimizer steps between new subspaces Q
    power   products with A Aᵀ: 2 come within 2 % of the truncated decomposition where singular values fall, within 10 %
            on noise, which has no direction larger than others
    skip    patterns of names that stay: embeddings and the head, by default
    Logs `kept`, the share of the squared norm of G + E that is in G^, and the `seconds` of a step (its device waits).
    Computes in float32 (float64 stays).
    """

    name = "low_rank"
    clips = False

    def __init__(
        self,
        *,
        rank: PositiveInt = 8,
        every: PositiveInt = 1,
        power: NonNegativeInt = 2,
        balance: bool = False,
        error_feedback: bool = True,
        skip: Sequence[str] = ("*embed*", "*head.*"),
        seed: NonNegativeInt = 0,
        log_every: PositiveInt = 10,
    ) -> None:
        super().__init__(every=log_every)
        check_limits(("rank", rank, PositiveInt), ("every", every, PositiveInt), ("power", power, NonNegativeInt))
        check_limits(("seed", seed, NonNegativeInt))
        self.rank, self.every, self.power, self.balance = rank, every, power, balance
        self.error_feedback, self.skip, self.seed = error_feedback, tuple(skip), seed
        self.rests: dict[str, Tensor] = {}
        self.bases: dict[str, Tensor] = {}
        self._told = False

    def change(self, weights: Weights, finite: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Project every matrix."""
        chosen = {name: weight for name, weight in weights.items() if self.takes(name, weight)}
        self._report_cost(chosen, len(weights))
        begin = self._read_clock(norm.device)
        whole, kept = torch.zeros_like(norm, dtype=torch.float64), torch.zeros_like(norm, dtype=torch.float64)
        for name, weight in chosen.items():
            gradient = cast(Tensor, weight.grad)
            wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            # a bad step is not taken, and must not reach the decomposition, which may raise on nan
            full_MN = torch.where(finite, wide, 0.0) + self._get_rest(name, wide)
            low_MN = self._project(name, full_MN)
            if self.error_feedback:
                self.rests[name] = torch.where(finite, full_MN - low_MN, self._get_rest(name, wide))
            gradient.copy_(torch.where(finite, low_MN, wide))
            whole, kept = whole + full_MN.square().sum(), kept + low_MN.square().sum()
        seconds = torch.tensor(self._read_clock(norm.device) - begin)
        return {"kept": kept / whole.clamp(min=SMALLEST), "seconds": seconds}

    def takes(self, name: str, weight: nn.Parameter) -> bool:
        """Whether a weight's gradient is projected."""
        spared = any(fnmatchcase(name, pattern) for pattern in self.skip)
        return weight.ndim == 2 and min(weight.shape) > self.rank and not spared

    def _get_rest(self, name: str, like: Tensor) -> Tensor:
        return self.rests[name].to(like) if name in self.rests else torch.zeros_like(like)

    def _project(self, name: str, full_MN: Tensor) -> Tensor:
        """Q Qᵀ G, with a Q of this step or an earlier one."""
        if name in self.bases and (self.steps - 1) % self.every:
            basis_MR = self.bases[name].to(full_MN)
        else:
            draw = torch.Generator(full_MN.device)  # of the device, so that the host need not wait for a copy
            draw.manual_seed(hash_numbers(self.seed, self.steps, crc32(name.encode())))
            size = (full_MN.shape[1], self.rank)
            omega_NR = torch.randn(size, generator=draw, dtype=full_MN.dtype, device=full_MN.device)
            basis_MR = find_range(full_MN, omega_NR, self.power, balance=self.balance)
        if self.every > 1:
            self.bases[name] = basis_MR
        return basis_MR @ (basis_MR.mT @ full_MN)

    def _read_clock(self, device: torch.device) -> float:
        if self.logs_now and device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def _report_cost(self, chosen: Weights, count: int) -> None:
        """Say once what it costs, by its shapes."""
        if self._told:
            return
        self._told = True
        flops = sum(count_projection_flops(w.shape[0], w.shape[1], self.rank, self.power) for w in chosen.values())
        stored = sum(4 * weight.numel() for weight in chosen.values()) if self.error_feedback else 0
        log.info(
            "low_rank: %s of %d become rank %d: %.3g GFLOP a step with new directions, %.1f MB kept for the next step",
            *(count_nouns(len(chosen), "gradient"), count, self.rank, flops / 1e9, stored / 1e6),
        )

    def state_dict(self) -> dict[str, Any]:
        """What waits for the next step, and the directions in use, by the names of weights."""
        state = {name: {key: value.cpu().clone() for key, value in getattr(self, name).items()} for name in STATE}
        return {**super().state_dict(), **state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.rests, self.bases = dict(state_dict["rests"]), dict(state_dict["bases"])


STATE = ("rests", "bases")


def find_range(full_MN: Tensor, omega_NR: Tensor, power: int, *, balance: bool) -> Tensor:
    """An orthonormal basis Q [M, R] of the directions in which a matrix is largest."""
    rms_M1 = full_MN.square().mean(1, keepdim=True).clamp(min=SMALLEST).sqrt()
    scaled_MN = full_MN / rms_M1 if balance else full_MN
    basis_MR = torch.linalg.qr(scaled_MN @ omega_NR).Q
    for _ in range(power):
        basis_NR = torch.linalg.qr(scaled_MN.mT @ basis_MR).Q
        basis_MR = torch.linalg.qr(scaled_MN @ basis_NR).Q
    return torch.linalg.qr(basis_MR * rms_M1).Q if balance else basis_MR


def count_projection_flops(rows: int, columns: int, rank: int, power: int) -> int:
    """FLOPs of one matrix with new directions: products with G, their QR (2 m r² of m rows), and Q Qᵀ G."""
    products = 2 * rows * columns * rank * (1 + 2 * power + 2)
    return products + 2 * rank**2 * (rows * (1 + power) + columns * power)


def hash_numbers(seed: int, step: int, name: int) -> int:
    """One seed of 63 bits for each matrix of each step, spread by odd factors (SplitMix64's)."""
    mixed = (seed + 1) * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + name * 0x94D049BB133111EB
    mixed ^= (mixed & (2**64 - 1)) >> 31
    return mixed & (2**63 - 1)
