"""One block of a model: a list of named sites, each a layer joined to the stream. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.nn.attention.base import Attention
from aptlab.nn.context import ForwardContext
from aptlab.nn.layer import Layer
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.smooth.base import Smooth

Factory = Callable[..., nn.Module]
Carries = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Factories of one place in a block: norm(dim), layer(shape, layer=), smooth(dim, layer=, site=)."""

    layer: Factory
    norm: Factory
    smooth: Factory


class Block(nn.Module):
    """x = smooth(x, layer(norm(x))) at every site in turn (pre-norm, Xiong et al. 2020, arXiv:2002.04745).

    A decoder has the sites "attention" and "ffn". A site's modules are children of the block: "ffn_norm", "ffn",
    "ffn_smooth". `carries` maps sites to what they hand to the same site of the next block: it goes in and comes out,
    so that a block that is recomputed sees what it saw.
    """

    def __init__(self, shape: Shape, *, layer: int, positions: LayerPositions, sites: Mapping[str, Site]) -> None:
        super().__init__()
        if not sites:
            raise ConfigError("sites={} leaves nothing to do; a decoder's are attention and ffn")
        self.layer, self.sites = layer, tuple(sites)
        for name, site in sites.items():
            self.add_module(f"{name}_norm", site.norm(shape.dim))
            self.add_module(name, checked(site.layer(shape, layer=layer), Layer, name))
            self.add_module(f"{name}_smooth", checked(site.smooth(shape.dim, layer=layer, site=name), Smooth, name))
        self.bind_positions(positions)

    def forward(self, x_BTC: Tensor, context: ForwardContext, carries: Carries) -> tuple[Tensor, dict[str, Any]]:
        """The stream after all sites, [B, T, C], and what they hand on."""
        handed: dict[str, Any] = {}
        for name in self.sites:
            norm, layer, smooth = (getattr(self, f"{name}{part}") for part in ("_norm", "", "_smooth"))
            context.enter_site(f"{self.layer}/{name}", carries.get(name))
            x_BTC = smooth(x_BTC, layer(norm(x_BTC), context), context)
            handed[name] = context.next_carry
        return x_BTC, handed

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """The layer of every site, by "3/ffn"."""
        yield from ((f"{self.layer}/{name}", getattr(self, name)) for name in self.sites)

    def mixers(self) -> Iterator[tuple[str, Attention]]:
        """Those that mix tokens."""
        yield from ((site, layer) for site, layer in self.layers() if isinstance(layer, Attention))

    def bind_positions(self, positions: LayerPositions) -> None:
        """Let every mixer know positions in this way from now on."""
        for _, mixer in self.mixers():
            mixer.bind_positions(positions)


def checked(module: nn.Module, base: type[nn.Module], site: str) -> nn.Module:
    """The module, if it keeps the contract of its place; else ConfigError naming the class and what it lacks."""
    if isinstance(module, base):
        return module
    owed = ", ".join(sorted(base.__abstractmethods__))  # type: ignore[attr-defined]
    raise ConfigError(
        f"{type(module).__module__}.{type(module).__name__} at the site {site} is no {base.__name__}; derive it from "
        f"{base.__module__}.{base.__name__} and write: {owed}"
    )
