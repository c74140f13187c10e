"""aptlab: every option of conf/rope, conf/bias, conf/embed and conf/attention, composed as a user composes it.

Options are found when this runs, so a new one is measured without a change here. SMALL gives those a size that a tiny
model with 96 tokens can show. Biases and embeddings are measured without rotation.

Legend: B batch, T tokens, H query heads, K key heads, D head dim, P pairs, N streams, C dim.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from aptlab.config import build, compose
from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError
from aptlab.models.layouts import convert_layout, replace_layout
from aptlab.nn.attention import AutopoieticAttention, FullAttention
from aptlab.nn.attention.qk_norm import QKNorm
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.absolute import LearnedPositions
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope import NoRope, Rope
from aptlab.nn.positions.rotary import DynamicRotary, LearnedRotary, MixedRotary
from aptlab.nn.shape import Shape
from aptlab.testing.invariance import SWITCH, NotOffered, Subject
from aptlab.testing.precision import rotate_by_angles

PROJECT = "aptlab"
GROUPS = ("rope", "bias", "embed", "attention")
SMALL = {
    "rope=irope": ["rope.chunk=16", "rope.growth.floor=16"],
    "rope=yarn_zones": ["rope.zones=[4,12]"],
    "rope=per_layer": ["rope.chunks=null"],
    "embed=learned": ["embed.length=4096"],
    "attention=sliding": ["attention.window.size=16", "attention.window.full_every=2"],
    "attention=linear": ["attention.chunk=16"],
}
VARIANTS = (
    "rope=irope rope.chunk=null rope.growth=null",
    "rope=longrope rope.retained=4",
    "rope=per_layer rope.chunks=[16,null]",
    "rope=xpos rope.zeta=angle",
    "rope=yarn rope.temperature_on=cos_sin",
    "attention=linear attention.form=one_plus_cos",
)
SIZES = {"dim": 32, "depth": 4, "heads": 4, "kv_heads": 2, "hidden": 48}
VOCAB = 61
GAIN = 8.0  # of matrices, so that attention is not uniform


def names() -> list[str]:
    """Every option as the words that choose it, and the variants that declare something else than their option."""
    groups = read_option_index().groups
    found = [f"{group}={option}" for group in GROUPS for option in sorted(groups.get(group, {}))]
    return [*(word for word in found if word not in ("bias=none", "embed=none")), *VARIANTS]


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    return Aptlab(name, head_dim=head_dim)


class Aptlab(Subject):
    """A tiny decoder composed from `words`, such as "rope=yarn rope.factor=8"."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, words: str, *, head_dim: int = 16) -> None:
        self.name, self.version = words, importlib.metadata.version(PROJECT)
        first, *rest = words.split()
        alone = ["rope=none"] if first.startswith(("bias=", "embed=")) else []
        sizes = [f"size.{key}={value}" for key, value in (SIZES | {"head_dim": head_dim}).items()]
        small = [word for word in SMALL.get(first, []) if word.partition("=")[0] not in words]
        config = compose("train", [*alone, first, *small, *rest, *sizes, f"context={SWITCH}", f"vocab={VOCAB}"])
        self.net = seeded({**config.resolved()["model"], "vocab": VOCAB})
        self.rope: Rope = self.net.rope
        self.head_dim = head_dim if self.net.embed_positions is None else SIZES["dim"]
        parts = [self.rope, *self.net.biases, *([] if self.net.embed_positions is None else [self.net.embed_positions])]
        self.relative = all(part.relative for part in parts)
        self.streams = self.rope.streams
        if isinstance(self.net.embed_positions, LearnedPositions):
            self.bounded = "a learned row per position; one beyond the table is an error"
        if any(bias.contextual for bias in self.net.biases):
            self.bounded = "places are counted from what is read; no position enters"

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        lengths = None if length is None else torch.full_like(tokens_BT, length)
        return self.net(tokens_BT, positions=positions, segments=segments, lengths=lengths).logits

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        cache, begin, parts = self.net.new_cache(*tokens_BT.shape), 0, []
        for size in [chunks[0], *[chunks[-1]] * (tokens_BT.shape[1] - chunks[0])]:
            parts.append(self.net(tokens_BT[:, begin : begin + size], cache=cache).logits)
            begin += size
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> Aptlab:
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).to(dtype)
        return other

    def relaid(self) -> Aptlab:
        if isinstance(self.rope, NoRope):
            raise NotOffered("no pairs that rotate")
        other = copy.copy(self)
        target = "interleaved" if first_layout(self.rope) == "half" else "half"
        try:
            other.rope = replace_layout(self.rope, target)
        except ConfigError as error:
            raise NotOffered(f"one layout: {error}") from error
        weights = convert_layout(self.net.state_dict(), self.net.shape, self.rope, target=target)
        other.net = copy.deepcopy(self.net)
        other.net.swap_rope(other.rope)
        other.net.load_state_dict(weights)
        return other

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        """Of every layer and head, by the layer's own code: [layers, H, T, T]."""
        if not len(self.net.rotaries) and not len(self.net.biases) and self.net.embed_positions is None:
            raise NotOffered("no rotation and no bias")
        places = positions.unsqueeze(0)
        if self.net.embed_positions is not None:
            added = self.net.embed_positions(places)[0]
            q, k = (x.float() + added for x in (q_TD, k_TD))
            return q.double() @ k.double().mT / math.sqrt(self.head_dim)
        step = ForwardContext(len(positions), positions=places)
        return torch.stack([layer_scores(block.attention, q_TD, k_TD, step) for block in self.net.blocks])

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        if self.net.embed_positions is not None:
            added = sinusoids(positions, self.head_dim, self.net.embed_positions.base) * self.net.embed_positions.scale
            return (q_TD + added) @ (k_TD + added).mT / math.sqrt(self.head_dim)
        shape = self.net.shape
        return torch.stack([Exact(shape, block.attention).scores(q_TD, k_TD, positions) for block in self.net.blocks])


def seeded(node: dict[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build(node)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if weight.ndim > 1 and not name.startswith("rotaries"):
                    weight.mul_(GAIN)
    return net.eval()


def first_layout(rope: Rope) -> str:
    """The layout of the first layer that rotates."""
    rules = (rope.for_layer(layer).rule for layer in range(SIZES["depth"]))
    return next(rule.layout for rule in rules if rule is not None)


def layer_scores(layer: Any, q_TD: Tensor, k_TD: Tensor, step: ForwardContext) -> Tensor:
    """Scores [H, T, T] of every query head with the key head that it meets."""
    layer = layer.inner if isinstance(layer, AutopoieticAttention) else layer  # the branch beside it has no scores
    heads, kv_heads, head_dim = layer.heads, layer.kv_heads, layer.head_dim
    qk = torch.cat((q_TD.expand(1, heads, -1, -1), k_TD.expand(1, kv_heads, -1, -1)), dim=1)
    if not isinstance(layer, FullAttention):  # linear attention rotates features by the same module
        rotary = layer.layer_positions.rotary
        q, k = rotary.rotate(qk, step.angles(rotary)).split([heads, kv_heads], dim=1)
        return q[0].double() @ spread(k[0], heads).double().mT / math.sqrt(head_dim)
    rows: list[Tensor] = []

    def kept(heads_: Heads, look: AttentionSpec, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """In place of PyTorch's kernel: keep the logits that it would take the softmax of."""
        product = heads_.q.double() @ spread(heads_.k, heads, dim=1).double().mT * look.scale
        added = 0.0 if mask is None or mask.dtype == torch.bool else mask.double()
        rows.append(product + added)
        return torch.zeros_like(heads_.q)

    # The layer's own forward, with queries and keys (as values too) in place of what it would project.
    qkv_BTD = torch.cat((qk, qk[:, heads:]), dim=1).transpose(1, 2).flatten(2)
    with (
        mock.patch("aptlab.nn.attention.dispatch.attend_sdpa", kept),
        mock.patch.object(layer, "qkv", torch.nn.Identity()),
        mock.patch.object(layer, "out", torch.nn.Identity()),
    ):
        layer(qkv_BTD, step)
    return torch.cat(rows, dim=2)[0]


def spread(keys: Tensor, heads: int, dim: int = 0) -> Tensor:
    """Every key head once for each query head that meets it."""
    return keys.repeat_interleave(heads // keys.shape[dim], dim=dim)


def sinusoids(positions_T: Tensor, dim: int, base: float) -> Tensor:
    """Sines at even dims and cosines at odd ones, by float64 products, [T, C]."""
    angles = positions_T.double().unsqueeze(-1) * base ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def normalize(x_HTD: Tensor, module: Any, norm: QKNorm) -> Tensor:
    """Heads over their root mean square, each by itself or all of a token together, times a weight, in float64."""
    assert norm.kind == "rms", "the options of attention have no other"
    if norm.over == "all_heads":
        weight = module.norm.weight.double().view(x_HTD.shape[0], 1, -1)
        return x_HTD / (x_HTD.pow(2).mean((0, 2), keepdim=True) + module.norm.eps).sqrt() * weight
    return x_HTD / (x_HTD.pow(2).mean(-1, keepdim=True) + module.eps).sqrt() * module.weight.double()


class Exact:
    """The scores of one layer in float64, every angle as one product of position and frequency."""

    def __init__(self, shape: Shape, layer: Any) -> None:
        self.place: LayerPositions = layer.layer_positions
        self.layer, self.rotary = layer, self.place.rotary
        self.rule: Rope | None = None if self.rotary is None else self.rotary.rule
        self.heads, self.kv_heads, self.head_dim = shape.head_sizes()
        self.met = torch.arange(self.heads) * self.kv_heads // self.heads  # the key head of every query head

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        """[H, T, T]"""
        streams = positions.unsqueeze(-1) if positions.ndim == 1 else positions
        factor = torch.ones(len(positions), 1, dtype=torch.float64)
        q, k = q_TD.double().expand(self.heads, -1, -1), k_TD.double().expand(self.kv_heads, -1, -1)
        full = isinstance(self.layer, FullAttention)
        norm = self.layer.qk_norm if full else None
        if norm is not None and norm.where == "before":
            q, k = normalize(q, self.layer.q_norm, norm), normalize(k, self.layer.k_norm, norm)
        k = k[self.met]
        if self.rule is not None:
            angles, amplitude, factor = self.angles(streams)
            q, k = (rotate_by_angles(x, angles, self.rule.layout, amplitude) for x in (q, k))
        if norm is not None and norm.where == "after":  # of each head, with one weight for all
            q, k = normalize(q, self.layer.q_norm, norm), normalize(k, self.layer.k_norm, norm)
        if self.place.norm_after:
            q, k = (x / (x.pow(2).mean(-1, keepdim=True) + self.place.norm_eps).sqrt() for x in (q, k))
        if self.place.growth is not None:
            steps = (streams[:, :1].double() + self.place.growth.offset).div(self.place.growth.floor).floor()
            factor = factor * (1 + self.place.growth.scale * torch.log1p(steps))
        scale = self.layer.logits.find_scale(self.head_dim) if full else 1 / math.sqrt(self.head_dim)
        out = self.products(q, k, streams[:, 0]) * factor * scale
        return out if self.place.scores is None else out + self.bias(q, k, streams[:, 0])

    def angles(self, streams_TN: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Angles [H, T, P], amplitudes, and the factor [T, 1] on the logits."""
        rule, rotary = self.rule, self.rotary
        assert rule is not None
        length = streams_TN[:, 0].max() + 1
        regime = rule.regime(streams_TN[None, :, 0], length.expand(1, len(streams_TN)))
        theta_RP = torch.tensor(rule.regimes(self.head_dim), dtype=torch.float64)
        if isinstance(rotary, DynamicRotary):
            base = rule.base_at(int(length), self.head_dim)  # type: ignore[attr-defined]
            theta_RP = base ** -(torch.arange(0, self.head_dim, 2, dtype=torch.float64)[None] / self.head_dim)
        if isinstance(rotary, LearnedRotary):
            theta_RP = theta_RP * torch.exp(rule.pace * rotary.weight.double())  # type: ignore[attr-defined]
        theta_HTP = theta_RP[0].expand(self.heads, len(streams_TN), -1)
        of_head = rule.head_regimes(self.kv_heads)
        if of_head is not None:
            theta_HTP = theta_RP[torch.tensor(of_head)[self.met]].unsqueeze(1)
        elif regime is not None:
            theta_HTP = theta_RP[regime[0]].expand(self.heads, -1, -1)
        rows = rule.combine(self.head_dim) or ((1,) + (0,) * (rule.streams - 1),) * theta_HTP.shape[-1]
        places_TP = streams_TN.double() @ torch.tensor(rows, dtype=torch.float64).T
        angles = places_TP * theta_HTP
        if isinstance(rotary, MixedRotary):
            weights = rotary.weight.double()[:, self.met]  # [2, H, P]
            angles = sum(streams_TN[None, :, i, None].double() * weights[i, :, None] for i in range(2))
        rates = rule.amplitude(self.head_dim)
        start = streams_TN[:, :1].double()
        amplitude = None if rates is None else torch.exp(-start * torch.tensor(rates, dtype=torch.float64))
        values = torch.tensor(rule.temperatures(), dtype=torch.float64)
        factor = values[:1].expand(len(streams_TN)) if regime is None or len(values) == 1 else values[regime[0]]
        return torch.as_tensor(angles), amplitude, factor.unsqueeze(-1)

    def products(self, q: Tensor, k: Tensor, places_T: Tensor) -> Tensor:
        rates = None if self.rule is None else self.rule.decay(self.head_dim)
        if rates is None or self.rule is None:
            return q @ k.mT
        distance = (places_T.unsqueeze(-1) - places_T).clamp_min(0).double().unsqueeze(-1)
        shrink = torch.tensor(rates, dtype=torch.float64) ** distance
        half = self.rule.layout == "half"
        both = torch.cat((shrink, shrink), -1) if half else shrink.repeat_interleave(2, -1)
        return torch.einsum("htd,hsd,tsd->hts", q, k, both)

    def bias(self, q: Tensor, k: Tensor, places_T: Tensor) -> Tensor:
        """By the module in float64; its constants are exact numbers, and distances are."""
        module, places = copy.deepcopy(self.place.scores).double(), places_T.unsqueeze(0)
        if module.contextual:
            allowed = torch.ones(1, 1, len(places_T), len(places_T), dtype=torch.bool).tril()
            return module(q.unsqueeze(0), k.unsqueeze(0), allowed)[0]
        return module(places, places)[0]
