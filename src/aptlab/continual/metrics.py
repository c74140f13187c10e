"""Numbers of a score matrix R: how well each task is done after each was learned. Pure functions, no torch.

Legend: T tasks, R[i][j] the score on task j after training task i, b[j] the score on task j before any training.

A score is larger where the model is better: an accuracy, or for language minus the nats per token. All numbers below
are in units of the score. A row may end at its own task (nothing was measured on later ones), or hold all T.

    ACC                   mean_j R[T,j]                                          Lopez-Paz & Ranzato 2017, eq. 2
    BWT                   mean_{j<T} R[T,j] - R[j,j]                             eq. 3
    FWT                   mean_{j>1} R[j-1,j] - b[j]                             eq. 4
    forgetting_last       mean_{j<T} R[j,j] - R[T,j]  = -BWT                     what Avalanche calls forgetting
    forgetting_max        mean_{j<T} max_{i<=T} R[i,j] - R[T,j], never negative  what Mammoth calls forgetting
    forgetting_chaudhry   mean_{j<T} max_{i<T} R[i,j] - R[T,j]                   Chaudhry et al. 2018, arXiv:1801.10112
    average_anytime       mean_i mean_{j<=i} R[i,j]                              average of ACC over the boundaries

(Lopez-Paz & Ranzato: arXiv:1706.08840.) Three numbers are called forgetting in the literature; positive means worse in
each. Chaudhry's is negative for a task that was never better than in the end, where Mammoth's is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from aptlab.errors import AptlabError

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class ContinualScores:
    """The numbers of one matrix; None where it has too few tasks, or no score that a number is made of."""

    acc: float
    bwt: float | None
    fwt: float | None
    forgetting_last: float | None
    forgetting_max: float | None
    forgetting_chaudhry: float | None
    average_anytime: float

    def plain(self) -> dict[str, float | None]:
        """By name, in the order of the table above."""
        return asdict(self)


def compute_scores(matrix: Matrix, baseline: Sequence[float] | None = None) -> ContinualScores:
    """Every number of a matrix [T, T] or of its lower triangle; `baseline` [T] is b. AptlabError names a bad cell."""
    check_matrix(matrix, baseline)
    return ContinualScores(
        acc=compute_mean(matrix[-1]),
        bwt=compute_backward_transfer(matrix),
        fwt=compute_forward_transfer(matrix, baseline),
        forgetting_last=compute_forgetting_last(matrix),
        forgetting_max=compute_forgetting_max(matrix),
        forgetting_chaudhry=compute_forgetting_chaudhry(matrix),
        average_anytime=compute_mean([compute_mean(row[: i + 1]) for i, row in enumerate(matrix)]),
    )


def compute_backward_transfer(matrix: Matrix) -> float | None:
    """Mean change on earlier tasks since each was learned: negative where they were forgotten."""
    return _average([matrix[-1][j] - matrix[j][j] for j in range(len(matrix) - 1)])


def compute_forward_transfer(matrix: Matrix, baseline: Sequence[float] | None) -> float | None:
    """Mean gain on a task before it is learned, over the untrained model; None without what it needs."""
    if baseline is None or any(len(matrix[j - 1]) <= j for j in range(1, len(matrix))):
        return None
    return _average([matrix[j - 1][j] - baseline[j] for j in range(1, len(matrix))])


def compute_forgetting_last(matrix: Matrix) -> float | None:
    """Mean loss on earlier tasks since each was learned."""
    return _average([matrix[j][j] - matrix[-1][j] for j in range(len(matrix) - 1)])


def compute_forgetting_max(matrix: Matrix) -> float | None:
    """Mean loss on earlier tasks since each was done best, the end included, so that it is never negative."""
    return _forget_from_best(matrix, matrix)


def compute_forgetting_chaudhry(matrix: Matrix) -> float | None:
    """Mean loss on earlier tasks since each was done best, the end left out."""
    return _forget_from_best(matrix, matrix[:-1])


def compute_mean(values: Sequence[float]) -> float:
    """The mean, exactly rounded."""
    return math.fsum(values) / len(values)


def check_matrix(matrix: Matrix, baseline: Sequence[float] | None = None) -> None:
    """AptlabError where a matrix is none: rows that are missing or of another length, or a score that is no number."""
    tasks = len(matrix)
    if not tasks:
        raise AptlabError("the score matrix has no row; train at least one task")
    for i, row in enumerate(matrix):
        if len(row) not in (i + 1, tasks):
            raise AptlabError(
                f"row {i + 1} of the score matrix has {len(row)} scores; {tasks} tasks take {tasks}, or {i + 1} for "
                "those up to its own"
            )
        for j, score in enumerate(row):
            if not math.isfinite(score):
                raise AptlabError(f"the score on task {j + 1} after task {i + 1} is {score}; train again from before")
    if baseline is not None and len(baseline) != tasks:
        raise AptlabError(f"the baseline has {len(baseline)} scores for {tasks} tasks; give one for each")


def _forget_from_best(matrix: Matrix, rows: Matrix) -> float | None:
    tasks = len(matrix)
    return _average([max(row[j] for row in rows if j < len(row)) - matrix[-1][j] for j in range(tasks - 1)])


def _average(values: Sequence[float]) -> float | None:
    return compute_mean(values) if values else None
