"""What a session was about, as six vectors. Legend: T tokens, C dim, K = C / 4, F fields that hold something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError, CheckpointError, ConfigError, suggest_option

FIELDS = ("topic", "constraints", "definitions", "unresolved", "style_preference", "spike_regions")
COMPRESSIONS = ("mean", "linear")
FACTOR = 4  # numbers of a field for each number of its compressed form
FORMAT = 1
KEYS = ("format", "dim", "compression", "fields", "weight", "embedding")


class Skeleton(nn.Module):
    """Six named fields of a session, each nothing or one vector [C], and the soft tokens that they become.

        field  <- field                                    nothing to add
        field  <- m · field + (1 - m) · mean_t h_t         h [T, C] the states of a text, m the momentum
        z      = compress(field)    [K]                    mean: means of 4 neighbours; linear: W · field, W [K, C]
        prefix = expand(z)          [C]                    mean: each number 4 times;   linear: Wᵀ · z

    A field that holds nothing puts no token in front. `compression=linear` starts as a random projection (rows of W are
    orthonormal, so that Wᵀ W is one); `fit_compression` gives it the principal directions of a table of vectors, and
    W is a parameter that whatever trains the network may train too.

    Fields are buffers in float32 that take no gradient. `embedding` names the table that the fields belong to, so that
    a skeleton of other weights is noticed; "" = not known.
    Source: the six-field skeleton of the APT-Transformer project (768 to 192 there, with its first 32 numbers as the
    topic and no way to read one back); soft tokens after Lester et al. 2021, arXiv:2104.08691.
    """

    states_FC: Tensor
    filled_F: Tensor

    def __init__(self, dim: int, *, compression: str = "mean") -> None:
        super().__init__()
        if dim < FACTOR or dim % FACTOR:
            raise ConfigError(f"dim={dim} is not divisible by {FACTOR}, and a skeleton keeps a quarter of it")
        if compression not in COMPRESSIONS:
            raise ConfigError(f"compression={compression} is not known{suggest_option(str(compression), COMPRESSIONS)}")
        self.dim, self.compression, self.embedding = dim, compression, ""
        self.register_buffer("states_FC", torch.zeros(len(FIELDS), dim))
        self.register_buffer("filled_F", torch.zeros(len(FIELDS), dtype=torch.bool))
        self.weight_KC: nn.Parameter | None = None
        if compression == "linear":
            self.weight_KC = nn.Parameter(nn.init.orthogonal_(torch.empty(dim // FACTOR, dim)))

    @property
    def filled(self) -> tuple[str, ...]:
        """Names of the fields that hold something, in the order of `FIELDS`."""
        return tuple(name for name, filled in zip(FIELDS, self.filled_F.tolist(), strict=True) if filled)

    @torch.no_grad()
    def update_field(self, name: str, states: Tensor, momentum: float = 0.0) -> None:
        """Move a field towards the mean of states [T, C], or to one vector [C]; the first value counts whole.

        momentum  share of the old value that stays, in [0, 1)
        AptlabError for a field that there is not, states of other sizes, and states that are not finite.
        """
        if name not in FIELDS:
            raise AptlabError(f"there is no field {name}{suggest_option(name, FIELDS)}")
        if not 0 <= momentum < 1:
            raise AptlabError(f"momentum={momentum} must be in [0, 1)")
        if states.ndim not in (1, 2) or states.shape[-1] != self.dim or not states.numel():
            raise AptlabError(f"states of {name} have sizes {list(states.shape)}; give [T, {self.dim}] or [{self.dim}]")
        pooled_C = states.to(self.states_FC.device, torch.float32).reshape(-1, self.dim).mean(0)
        if not pooled_C.isfinite().all():
            raise AptlabError(f"states of {name} are not finite; was the training of the model broken off by NaN?")
        place = FIELDS.index(name)
        if self.filled_F[place]:
            pooled_C = momentum * self.states_FC[place] + (1 - momentum) * pooled_C
        self.states_FC[place] = pooled_C
        self.filled_F[place] = True

    @torch.no_grad()
    def clear_field(self, name: str) -> None:
        """Let a field hold nothing again."""
        self.states_FC[FIELDS.index(name)] = 0
        self.filled_F[FIELDS.index(name)] = False

    def compress(self) -> Tensor:
        """z of the fields that hold something, [F, K]."""
        held_FC = self.states_FC[self.filled_F]
        if self.weight_KC is None:
            return held_FC.unflatten(-1, (-1, FACTOR)).mean(-1)
        return held_FC @ self.weight_KC.T

    def expand(self, z_FK: Tensor) -> Tensor:
        """Vectors of the model's width out of compressed ones, [F, C]."""
        return z_FK.repeat_interleave(FACTOR, -1) if self.weight_KC is None else z_FK @ self.weight_KC

    def prefix(self, rms: float | None = None) -> Tensor:
        """Soft tokens of the fields that hold something, [F, C], [0, C] where none does.

        rms  size that each is brought to, that of the embedding's rows: states behind the last norm are far larger
             than what blocks read at first, and would drown it; None = as they are
        """
        soft_FC = self.expand(self.compress())
        if rms is None:
            return soft_FC
        size_F1 = soft_FC.square().mean(-1, keepdim=True).sqrt()
        return soft_FC * (rms / size_F1.clamp_min(1e-12))

    @torch.no_grad()
    def fit_compression(self, table_VC: Tensor) -> None:
        """Let W be the K principal directions of the rows of a table, not centred, each row with the same weight.

        Of all pairs of a linear compression and its transpose, this one leaves the least squared error on the rows
        (Eckart & Young 1936; Baldi & Hornik 1989). ConfigError for compression=mean, which has no W.
        """
        if self.weight_KC is None:
            raise ConfigError("compression=mean has nothing to fit; use compression=linear")
        rows_VC = nn.functional.normalize(table_VC.detach().double(), dim=-1)
        _, directions_CC = torch.linalg.eigh(rows_VC.T @ rows_VC)  # in ascending order
        self.weight_KC.copy_(directions_CC[:, -self.weight_KC.shape[0] :].T.flip(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, for `torch.load(weights_only=True)`; a field that holds nothing is None."""
        fields = {
            name: self.states_FC[place].detach().cpu().clone() if self.filled_F[place] else None
            for place, name in enumerate(FIELDS)
        }
        weight = None if self.weight_KC is None else self.weight_KC.detach().cpu().clone()
        values = (FORMAT, self.dim, self.compression, fields, weight, self.embedding)
        return dict(zip(KEYS, values, strict=True))

    @classmethod
    def from_dict(cls, values: Any) -> Skeleton:
        """The skeleton that `to_dict` described. CheckpointError names the key, its value and what is allowed."""
        check_header(values)
        skeleton = cls(values["dim"], compression=values["compression"])
        for name, state in check_fields(values["fields"], values["dim"]).items():
            if state is not None:
                skeleton.update_field(name, state)
        skeleton.embedding = values["embedding"]
        if skeleton.weight_KC is None:
            if values["weight"] is not None:
                raise CheckpointError("weight is given, and compression=mean has none; leave it None")
        else:
            check_tensor("weight", values["weight"], tuple(skeleton.weight_KC.shape))
            skeleton.weight_KC.data.copy_(values["weight"])
        return skeleton


def check_header(values: Any) -> None:
    """CheckpointError where values are no skeleton, or one of another format."""
    if not isinstance(values, Mapping) or set(values) != set(KEYS):
        found = ", ".join(sorted(map(str, values))[:8]) if isinstance(values, Mapping) else type(values).__name__
        raise CheckpointError(f"it holds no skeleton (found: {found or 'nothing'}; needed: {', '.join(KEYS)})")
    if values["format"] != FORMAT or isinstance(values["format"], bool):
        raise CheckpointError(f"format={values['format']!r}, and this aptlab reads {FORMAT}; install the one it is of")
    dim = values["dim"]
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < FACTOR or dim % FACTOR:
        raise CheckpointError(f"dim={dim!r} must be a whole number divisible by {FACTOR}")
    if values["compression"] not in COMPRESSIONS:
        raise CheckpointError(f"compression={values['compression']!r}; allowed: {', '.join(COMPRESSIONS)}")
    if not isinstance(values["embedding"], str):
        raise CheckpointError(f"embedding={values['embedding']!r} must be a text")


def check_fields(fields: Any, dim: int) -> dict[str, Tensor | None]:
    """The fields of a dict; CheckpointError for names and vectors that do not belong there."""
    if not isinstance(fields, Mapping):
        raise CheckpointError(f"fields={fields!r} must be a dict of {', '.join(FIELDS)}")
    if missing := [name for name in FIELDS if name not in fields]:
        raise CheckpointError(f"fields.{missing[0]} is missing; needed: {', '.join(FIELDS)} (None where it is empty)")
    if foreign := [name for name in fields if name not in FIELDS]:
        raise CheckpointError(f"fields.{foreign[0]} is no field; allowed: {', '.join(FIELDS)}")
    for name, state in fields.items():
        if state is not None:
            check_tensor(f"fields.{name}", state, (dim,))
    return dict(fields)


def check_tensor(key: str, value: Any, sizes: tuple[int, ...]) -> None:
    """CheckpointError for what is no finite float32 tensor of these sizes."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.layout != torch.strided:
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{key} is a {found}; it must be a float32 tensor of sizes {list(sizes)}")
    if tuple(value.shape) != sizes:
        raise CheckpointError(f"{key} has sizes {list(value.shape)}; it must have {list(sizes)}")
    if not value.isfinite().all():
        raise CheckpointError(f"{key} holds numbers that are not finite; take the field out, or use an earlier file")


def measure_rms(table_VC: Tensor) -> float:
    """Root mean square of all numbers of a table, in float32; nn.Embedding starts at 0.02 in aptlab."""
    return math.sqrt(table_VC.detach().float().square().mean().item())
