"""Class attention: one token reads all others and is the only one that changes.

Legend: B batch, P patches, H heads, D head dim, C dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import FeedForward
from aptlab.nn.norm import Norm
from aptlab.nn.shape import Shape

SITE = "tab/ffn"  # of what the feed-forward says, in the slots of the context


class PatchKeys(NamedTuple):
    """Keys and values of the patches, [B, H, P, D], and which of them count, bool [B, 1, 1, P] (None: all)."""

    k_BHPD: Tensor
    v_BHPD: Tensor
    seen: Tensor | None = None


class TaskAttentionBlock(nn.Module):
    """TAB of DyTox (Douillard et al. 2022, arXiv:2111.11326), the class attention of CaiT (arXiv:2103.17239):

    z = norm([token; patches]),  e' = token + O softmax(Q z_token (K z)^T / sqrt(D)) V z,  e = e' + ffn(ffn_norm(e'))

    The query is the token alone. Keys and values of the patches do not depend on it: `read_patches` makes them once
    for the tokens of all tasks. Q, K and V have no bias, O has one, as the official code has it. `norm` is applied by
    the caller, who has it for tokens and patches alike.

    norm  factory norm(dim) before the feed-forward
    ffn   factory ffn(shape, layer=)
    """

    def __init__(self, shape: Shape, *, norm: Callable[..., Norm], ffn: Callable[..., FeedForward]) -> None:
        super().__init__()
        self.heads, _, self.head_dim = shape.head_sizes()
        inner = self.heads * self.head_dim
        self.q = nn.Linear(shape.dim, inner, bias=False)
        self.k = nn.Linear(shape.dim, inner, bias=False)
        self.v = nn.Linear(shape.dim, inner, bias=False)
        self.out = nn.Linear(inner, shape.dim)
        self.ffn_norm = norm(shape.dim)
        self.ffn = ffn(shape, layer=shape.depth - 1)

    def read_patches(self, z_BPC: Tensor, segments: Tensor | None = None) -> PatchKeys:
        """Keys and values of normalised patches; those of segment 0 are padding and not seen."""
        seen = None if segments is None else (segments != 0)[:, None, None, :]
        return PatchKeys(self._split(self.k(z_BPC)), self._split(self.v(z_BPC)), seen)

    def forward(self, token_B1C: Tensor, z_B1C: Tensor, patches: PatchKeys, context: ForwardContext) -> Tensor:
        """The embedding e of a token, [B, 1, C]; z is the token after the norm."""
        k_BHSD = torch.cat((self._split(self.k(z_B1C)), patches.k_BHPD), 2)
        v_BHSD = torch.cat((self._split(self.v(z_B1C)), patches.v_BHPD), 2)
        seen = None if patches.seen is None else F.pad(patches.seen, (1, 0), value=True)
        read_BH1D = F.scaled_dot_product_attention(self._split(self.q(z_B1C)), k_BHSD, v_BHSD, attn_mask=seen)
        e_B1C = token_B1C + self.out(read_BH1D.transpose(1, 2).flatten(2))
        context.enter_site(SITE)
        return e_B1C + self.ffn(self.ffn_norm(e_B1C), context)

    def _split(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
