"""One block of a model: a list of named sites, each a layer joined to the stream. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.nn.attention.base import Attention
from aptlab.nn.context import ForwardContext
from aptlab.nn.init import OwnsInit, reset_tree
from aptlab.nn.layer import Layer
from aptlab.nn.memory.base import Memory
from aptlab.nn.norm import Norm
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.width import merge_widths

NormFactory = Callable[..., Norm]
Carries = Mapping[str, Any]
PARTS = ("_norm", "", "_norm_after", "_smooth", "_norm_joined")  # of a site, in the order in which they are called


@dataclass(frozen=True, kw_only=True)
class Site:
    """Factories of one place in a block: norm(dim), layer(shape, layer=), norm_after(dim), smooth(dim, layer=, site=).

    norm         before the layer; None = none
    norm_after   of what the layer gives, before it joins the stream; None = none
    memory       memory(layer, shape, layer=) around a layer that mixes tokens; None = none
    norm_joined  of the stream after the join, as post-norm has it; None = none
    """

    layer: Callable[..., Layer]
    norm: NormFactory | None
    smooth: Callable[..., Smooth]
    norm_after: NormFactory | None = None
    memory: Callable[..., Memory] | None = None
    norm_joined: NormFactory | None = None


class Block(OwnsInit, nn.Module):
    """x = norm_joined(smooth(x, norm_after(layer(norm(x))))) at every site in turn; each norm may be missing.

    norm alone is pre-norm (Xiong et al. 2020, arXiv:2002.04745), norm_after alone the reordered norm of OLMo 2
    (arXiv:2501.00656), both the sandwich of Gemma 2 (arXiv:2408.00118), norm_joined alone the post-norm of the first
    Transformer (Vaswani et al. 2017, arXiv:1706.03762).

    parallel  every site reads the stream as it entered the block, so that with a plain smooth
              x' = x + attention(norm(x)) + ffn(norm(x)) (Wang & Komatsuzaki 2021, GPT-J; arXiv:2204.06745, section 2.1)
    norm      factory norm(dim) of one norm that all sites of a parallel block read, before their own, if they have any

    A decoder has the sites "attention" and "ffn". A site's modules are children of the block: "ffn_norm", "ffn",
    "ffn_norm_after", "ffn_smooth", "ffn_norm_joined". `carries` maps sites to what they hand to the same site of the
    next block: it goes in and comes out, so that a block that is recomputed sees what it saw.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        positions: LayerPositions,
        sites: Mapping[str, Site],
        parallel: bool = False,
        norm: NormFactory | None = None,
    ) -> None:
        super().__init__()
        if not sites:
            raise ConfigError("sites={} leaves nothing to do; a decoder's are attention and ffn")
        if norm is not None and not parallel:
            raise ConfigError(
                "norm is read by all sites of a parallel block, and this one is not; set parallel=true, or norm=null "
                "and a norm at each site"
            )
        if parallel and any(site.norm_joined for site in sites.values()):
            raise ConfigError(
                "norm_joined normalises the stream between two joins, and in a parallel block both read it as it "
                "entered; set parallel=false, or norm_joined=null at each site"
            )
        self.layer, self.sites, self.parallel = layer, tuple(sites), parallel
        self.norm = build_norm(norm, shape)
        for name, site in sites.items():
            self.add_module(f"{name}_norm", build_norm(site.norm, shape))
            self.add_module(name, build_layer(site, shape, layer, name))
            self.add_module(f"{name}_norm_after", build_norm(site.norm_after, shape))
            self.add_module(f"{name}_smooth", checked(site.smooth(shape.dim, layer=layer, site=name), Smooth, name))
            self.add_module(f"{name}_norm_joined", build_norm(site.norm_joined, shape))
            getattr(self, f"{name}_smooth").bind_site(self._describe_site(site, shape))
        self.widths = merge_widths([layer.widths for _, layer in self.layers()])  # here: a compiled pass reads them
        self.bind_positions(positions)

    def forward(self, x_BTC: Tensor, context: ForwardContext, carries: Carries) -> tuple[Tensor, dict[str, Any]]:
        """The stream after all sites, [B, T, C], and what they hand on."""
        handed: dict[str, Any] = {}
        entered_BTC = self.norm(x_BTC)
        read_BTC: Tensor | None = None  # what the site before made of the stream for this one
        for name, following in zip(self.sites, (*self.sites[1:], None), strict=True):
            parts = (getattr(self, f"{name}{part}") for part in PARTS)
            norm, layer, norm_after, smooth, norm_joined = parts
            context.enter_site(f"{self.layer}/{name}", carries.get(name))
            if read_BTC is None:
                read_BTC = norm(entered_BTC if self.parallel else x_BTC)
            delta_BTC = norm_after(layer(read_BTC, context))
            if not isinstance(norm_joined, nn.Identity):  # what reads the join is the stream
                x_BTC, read_BTC = smooth.join_norm(x_BTC, delta_BTC, context, norm_joined)[1], None
            elif self.parallel or following is None:
                x_BTC, read_BTC = smooth(x_BTC, delta_BTC, context), None
            else:
                x_BTC, read_BTC = smooth.join_norm(x_BTC, delta_BTC, context, getattr(self, f"{following}_norm"))
            handed[name] = context.next_carry
        return x_BTC, handed

    def reset_parameters(self, std: float, depth: int) -> None:
        """Draw the start of every part; then each join may change that of its layer."""
        reset_tree(self, std, depth)
        for name in self.sites:
            getattr(self, f"{name}_smooth").start_branch(getattr(self, name), depth)

    def _describe_site(self, site: Site, shape: Shape) -> SiteInfo:
        return SiteInfo(
            depth=shape.depth,
            sites=len(self.sites),
            parallel=self.parallel,
            norm=site.norm is not None or not isinstance(self.norm, nn.Identity),
            norm_after=site.norm_after is not None,
            norm_joined=site.norm_joined is not None,
        )

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """The layer of every site, by "3/ffn"."""
        yield from ((f"{self.layer}/{name}", getattr(self, name)) for name in self.sites)

    def keep_width(self, width: float) -> None:
        """Let nested layers become what this width of them is; layers of one width stay."""
        for _, layer in self.layers():
            if len(layer.widths) > 1:
                layer.keep_width(width)
        self.widths = merge_widths([layer.widths for _, layer in self.layers()])

    def mixers(self) -> Iterator[tuple[str, Attention]]:
        """Those that mix tokens."""
        yield from ((site, layer) for site, layer in self.layers() if isinstance(layer, Attention))

    def bind_positions(self, positions: LayerPositions) -> None:
        """Let every mixer know positions in this way from now on."""
        for _, mixer in self.mixers():
            mixer.bind_positions(positions)


def build_layer(site: Site, shape: Shape, layer: int, name: str) -> nn.Module:
    """The layer of a site, with its memory around it where it has one."""
    module = checked(site.layer(shape, layer=layer), Layer, name)
    if site.memory is None:
        return module
    if not isinstance(module, Attention):
        raise ConfigError(
            f"memory at the site {name} has nothing to keep: {type(module).__name__} mixes no tokens; give it "
            "to a site of attention"
        )
    return site.memory(module, shape, layer=layer).wrap_attention()


def build_norm(factory: NormFactory | None, shape: Shape) -> nn.Module:
    """A norm of the stream's width, or what gives back what it gets."""
    return nn.Identity() if factory is None else factory(shape.dim)


def checked(module: nn.Module, base: type[nn.Module], site: str) -> nn.Module:
    """The module, if it keeps the contract of its place; else ConfigError naming the class and what it lacks."""
    if isinstance(module, base):
        return module
    owed = ", ".join(sorted(base.__abstractmethods__))  # type: ignore[attr-defined]
    raise ConfigError(
        f"{type(module).__module__}.{type(module).__name__} at the site {site} is no {base.__name__}; derive it from "
        f"{base.__module__}.{base.__name__} and write: {owed}"
    )
