"""The decoder of an encoder-decoder beside the sources that it reads, as generation takes a decoder.

Legend: B rows, S tokens of a source, T tokens of a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models import Encoded, EncoderDecoder, Output
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.context import KeySource


class ConditionedDecoder:
    """Continues targets of fixed sources: the encoder runs once, here, and the cache keeps the sources' keys.

    sources  tokens of each row's source with the eos that ends it; padded on the right, and padding is not seen
    copies   rows of each source, side by side: hypotheses of a beam search

    It has of a `Decoder` what `DecodingBatch` asks for; row r continues the target of source r // copies. The network
    must be in eval mode. Raises AptlabError for a source that the encoder cannot read.
    """

    reads_source: ClassVar[bool] = True

    def __init__(self, net: EncoderDecoder, sources: Sequence[Sequence[int]], *, copies: int = 1) -> None:
        check_sources(sources, net)
        self.net, self.vocab, self.embed, self.rotaries = net, net.vocab, net.embed, net.rotaries
        device, longest = net.embed.weight.device, max(map(len, sources))
        tokens_BS = torch.tensor([[*row, *[0] * (longest - len(row))] for row in sources], device=device)
        sizes_B1 = torch.tensor([[len(row)] for row in sources], device=device)
        segments_BS = (torch.arange(longest, device=device) < sizes_B1).long()
        padded = any(len(row) != longest for row in sources)
        with torch.inference_mode():
            encoded = net.encode(tokens_BS, segments=segments_BS if padded else None)
            states_BSC = encoded.source.states.repeat_interleave(copies, 0)
            seen_BS = segments_BS.repeat_interleave(copies, 0) if padded else None
        self.encoded = Encoded(KeySource(states_BSC, seen_BS), {}, {})

    @property
    def max_positions(self) -> int:
        """Positions that a target can have."""
        return self.net.max_positions

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return self.net.training

    def train(self, mode: bool = True) -> None:
        """Set the network's mode."""
        self.net.train(mode)

    def eval(self) -> None:
        """Turn dropout off."""
        self.net.eval()

    def each_block(self) -> list[Any]:
        """The blocks that write."""
        return self.net.each_block()

    def new_cache(self, batch: int, length: int, *, lengths: Tensor | None = None) -> KVCache:
        """As `EncoderDecoder.new_cache`."""
        return self.net.new_cache(batch, length, lengths=lengths)

    def __call__(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Output:
        """Logits of the successors of target tokens [B, T]."""
        return self.net(
            decoder_tokens=tokens,
            decoder_positions=positions,
            decoder_segments=segments,
            encoded=self.encoded,
            cache=cache,
        )


def check_sources(sources: Sequence[Sequence[int]], net: EncoderDecoder) -> None:
    """AptlabError for what cannot be read."""
    for number, source in enumerate(sources):
        wrong = [token for token in source if not 0 <= token < net.vocab]
        if wrong:
            raise AptlabError(
                f"source {number} holds token {wrong[0]} and the model knows 0 to {net.vocab - 1}; encode it with the "
                "tokenizer of the model"
            )
        if not 0 < len(source) <= net.max_positions:
            raise AptlabError(
                f"source {number} has {len(source)} tokens; the encoder reads 1 to {net.max_positions}, eos counted"
            )
