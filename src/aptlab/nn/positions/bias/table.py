"""Learned numbers, one per head and distance or range of distances. Legend: H heads, N rows of the table."""

from __future__ import annotations

import bisect
from typing import ClassVar

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.bias.base import Formula, ScoreBias
from aptlab.ops.measure import upcast_to_float32


class LearnedBias(ScoreBias):
    """f(h, d) = w[min(d, max_distance), h] with a learned w [max_distance + 1, H], one table per layer.

    Shaw et al. 2018 (arXiv:1803.02155, section 3.2) clip distances like this; there a vector is added to each key, here
    a number to each score, which is what their vectors come to where the query is left out.
    """

    shared: ClassVar[bool] = False

    def __init__(self, *, heads: int, head_dim: int, layer: int, max_distance: PositiveInt = 128) -> None:
        del head_dim
        super().__init__(heads=heads)
        self.layer, self.max_distance = layer, max_distance
        self.embed = nn.Embedding(max_distance + 1, heads)
        nn.init.normal_(self.embed.weight, std=0.02)

    def formula(self) -> Formula:
        """The table's row of min(d, max_distance)."""
        table_NH, last = upcast_to_float32(self.embed.weight), self.max_distance
        return lambda head, distance: table_NH[distance.clamp_max(last), head]

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"heads={self.heads}, max_distance={self.max_distance}"


class T5Bias(ScoreBias):
    """f(h, d) = w[bucket(d), h] with a learned w [buckets, H], shared by all layers.

    Causal form of Raffel et al. 2019 (arXiv:1910.10683, section 2.1). With E = buckets // 2 and n = buckets - E:

        bucket(d) = d                                                              for d < E
        bucket(d) = min(E + floor(n · ln(d / E) / ln(max_distance / E)), buckets - 1)   for d >= E

    The edges of buckets are found with integers, so that no rounding of a logarithm can move one. Distances from
    max_distance on share the last bucket.
    """

    bucket_of: Tensor

    def __init__(
        self, *, heads: int, head_dim: int, layer: int, buckets: PositiveInt = 32, max_distance: PositiveInt = 128
    ) -> None:
        del head_dim, layer
        if buckets < 2 or max_distance <= buckets // 2:
            raise ConfigError(
                f"max_distance={max_distance} must be larger than buckets // 2 = {buckets // 2}, and "
                "buckets at least 2; published: buckets 32, max_distance 128"
            )
        self.buckets, self.max_distance = buckets, max_distance
        super().__init__(heads=heads)
        self.embed = nn.Embedding(buckets, heads)
        nn.init.normal_(self.embed.weight, std=0.02)

    def constants(self) -> dict[str, Tensor]:
        """The bucket of each distance up to max_distance, int64 [max_distance + 1]."""
        edges = torch.tensor(compute_bucket_edges(self.buckets, self.max_distance), device="cpu")
        distances = torch.arange(self.max_distance + 1, device="cpu")
        return {"bucket_of": torch.bucketize(distances, edges, right=True)}

    def formula(self) -> Formula:
        """The table's row of bucket(d)."""
        table_NH, bucket_of, last = upcast_to_float32(self.embed.weight), self.bucket_of, self.max_distance
        return lambda head, distance: table_NH[bucket_of[distance.clamp_max(last)], head]

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"heads={self.heads}, buckets={self.buckets}, max_distance={self.max_distance}"


def compute_bucket_edges(buckets: int, max_distance: int) -> list[int]:
    """The smallest distance of each bucket from the second on; exact.

    d lies in bucket E + j or above when (d / E)^n >= (max_distance / E)^j.

    >>> compute_bucket_edges(8, 32)
    [1, 2, 3, 4, 7, 12, 20]
    """
    exact = max(1, buckets // 2)
    wide_buckets = buckets - exact
    distances = range(exact, max_distance + 1)

    def first(j: int) -> int:
        limit = max_distance**j * exact**wide_buckets
        return distances[bisect.bisect_left(distances, limit, key=lambda d: d**wide_buckets * exact**j)]

    return [*range(1, exact), *(first(j) for j in range(wide_buckets))]
