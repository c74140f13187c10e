"""Laws of memory tiers. Legend: B rows, T tokens, V vocabulary."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from aptlab.nn.memory import Memory
from aptlab.nn.segments import count_state_bytes, detach_states, make_plain_states, reset_states, select_rows
from aptlab.nn.shape import Shape
from aptlab.testing.contract import Contract, assert_close, assert_equal
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

SHAPE = Shape(dim=16, depth=2, heads=2, kv_heads=1, head_dim=8, hidden=16)
TOKENS = 22
# Rows whose documents change at different steps; row 2 has padding inside and at its end.
NAMES = torch.tensor([[3] * 13 + [4] * 9, [5] * 4 + [6] * 4 + [7] * 14, [2] * 9 + [0] * 3 + [2] * 8 + [0] * 2])
SPLITS = ([TOKENS], [7, 7, 8], [1] * 4 + [13] + [5])


class MemoryContract(Contract):
    """Laws of one tier: override `factory`, called as `factory(attention, shape, layer=)`.

    by_pass   whether what a token sees depends on how a text is cut into passes, as for xl; every other tier is
              measured to be the same however it is cut
    fixed     whether the state has one size from the first token on
    gain      size of the network's matrices in units of those at the start of training; less for a memory that learns
              by gradients, which diverges at a large one
    """

    factory: Callable[..., Memory]
    by_pass: bool = False
    fixed: bool = True
    gain: float = 8.0

    def test_a_later_token_changes_nothing(self) -> None:
        net, tokens = self._net(), make_random_tokens(3, TOKENS)
        changed = tokens.clone()
        changed[:, 9:] = (changed[:, 9:] + 7) % net.vocab
        first, second = (self._read(net, rows, [6, 8, 8])[0] for rows in (tokens, changed))
        assert_equal(second[:, :9], first[:, :9], "a later token changes nothing before it")

    def test_it_remembers_the_segment_before(self) -> None:
        net, tokens = self._net(), make_random_tokens(1, TOKENS)
        changed = tokens.clone()
        changed[:, 4:8] = (changed[:, 4:8] + 7) % net.vocab
        first, second = (self._read(net, rows, [8, 8, 6])[0] for rows in (tokens, changed))
        change = (first[:, 10:] - second[:, 10:]).abs().max().item()
        assert change > 1e-6, f"tokens of the segment before change the next ones by {change:.3g}"

    def test_a_reset_row_is_a_fresh_one(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, TOKENS)
        _, states = self._read(net, tokens, [9])
        reset = reset_states(states, torch.tensor([True, False]))
        with torch.no_grad():
            got, went_on = (net(tokens[:, 9:], states=given).logits for given in (reset, states))
            fresh = net(tokens[:, 9:], states={}).logits
        assert_close(got[0], fresh[0], "a reset row is a fresh one", atol=1e-5)
        assert_equal(got[1], went_on[1], "another row goes on")

    def test_no_state_is_a_state_of_zeros(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, 9)
        zeros = {site: layer.init_state(2) for site, layer in list_memories(net)}
        with torch.no_grad():
            got, expected = (net(tokens, states=states).logits for states in (zeros, {}))
        assert_close(got, expected, "zeros are as no state", atol=1e-5)

    def test_a_document_in_a_batch_is_the_document_alone(self) -> None:
        net, tokens = self._net(), make_random_tokens(3, TOKENS)
        splits = SPLITS if not self.by_pass else [[1] * TOKENS]
        for sizes in splits:
            got, _ = self._read(net, tokens, sizes, segments=NAMES)
            for row, name in ((0, 3), (0, 4), (1, 5), (1, 6), (1, 7), (2, 2)):
                here = NAMES[row] == name
                size = int(here.sum())
                alone, _ = self._read(net, tokens[row : row + 1, here], [1] * size if self.by_pass else [size])
                assert_close(got[row, here], alone[0], f"document {name} of a batch in {sizes} == alone", atol=2e-5)

    def test_passes_may_cut_the_text_anywhere(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, TOKENS)
        whole, _ = self._read(net, tokens, [TOKENS])
        for sizes in SPLITS if not self.by_pass else ():
            assert_close(self._read(net, tokens, sizes)[0], whole, f"passes of {sizes} tokens", atol=2e-5)

    def test_generation_keeps_the_state_in_the_cache(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, TOKENS)
        with torch.no_grad():
            for sizes in SPLITS:
                got = decode_in_chunks(net, tokens, sizes)
                expected, _ = self._read(net, tokens, sizes)
                assert_close(got, expected, f"a cache == states, {sizes} tokens at a time", atol=2e-5)

    def test_left_padding_changes_nothing(self) -> None:
        net, tokens = self._net(), make_random_tokens(1, 16)
        padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), tokens), 1)
        segments = (torch.arange(21) >= 5).long().unsqueeze(0)
        positions = (torch.arange(21) - 5).clamp_min(0).unsqueeze(0)
        cache = net.new_cache(1, 21)
        with torch.no_grad():
            expected, _ = self._read(net, tokens, [11, 5])
            first = net(padded[:, :16], segments=segments[:, :16], positions=positions[:, :16], cache=cache).logits
            last = net(padded[:, 16:], positions=positions[:, 16:], cache=cache).logits
        assert_close(torch.cat((first[:, 5:], last), 1), expected, "left padding == none", atol=2e-5)

    def test_the_state_has_a_fixed_size(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, TOKENS)
        sizes = {count_state_bytes(self._read(net, tokens, cut)[1]) for cut in ([1], [9], [9, 13], [1] * 20)}
        assert not self.fixed or len(sizes) == 1, f"the state takes {sorted(sizes)} bytes, must stay the same"

    def test_recomputed_blocks_give_the_same_gradients(self) -> None:
        grads = []
        for wrap in (False, True):
            net = self._net().train()
            if wrap:
                net.blocks = nn.ModuleList(checkpoint_wrapper(block) for block in net.blocks)
            grads.append(train_segments(net))
        for plain, again in zip(*grads, strict=True):
            assert_equal(again, plain, "a gradient with activation checkpointing")

    def test_every_weight_gets_a_finite_gradient(self) -> None:
        net = self._net().train()
        train_segments(net)
        for name, weight in net.named_parameters():
            assert weight.grad is not None, f"{name} gets no gradient"
            assert bool(weight.grad.isfinite().all()), f"the gradient of {name} is not finite"

    def test_it_compiles_as_one_graph(self) -> None:
        shape, tokens = dataclasses.replace(SHAPE, depth=1), make_random_tokens(3, 6)
        net = make_tiny_decoder(shape=shape, gain=self.gain, memory=self.factory)
        torch._dynamo.reset()
        compiled: Any = torch.compile(net, fullgraph=True, backend="eager")
        got, _ = self._read(compiled, tokens, [3, 3], segments=NAMES[:, 11:17])
        expected, _ = self._read(net, tokens, [3, 3], segments=NAMES[:, 11:17])
        assert_close(got, expected, "compiled == eager", atol=1e-5)

    def test_the_state_is_saved_as_plain_values(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, TOKENS)
        _, states = self._read(net, tokens, [9])
        file = io.BytesIO()
        torch.save(make_plain_states(states), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        with torch.no_grad():
            got, expected = (net(tokens[:, 9:], states=given).logits for given in (loaded, states))
            alone = net(tokens[1:, 9:], states=select_rows(states, slice(1, 2))).logits
        assert_equal(got, expected, "a loaded state")
        assert_close(alone, expected[1:], "a row alone", atol=1e-5)

    def test_it_counts_its_work(self) -> None:
        for _, layer in list_memories(self._net()):
            assert layer.count_flops(64) > 0, "count_flops says 0"
            assert layer.max_keys == 0, f"max_keys={layer.max_keys}, and the state stands for earlier keys"

    def _net(self) -> Any:
        return make_tiny_decoder(shape=SHAPE, gain=self.gain, memory=self.factory)

    def _read(self, net: nn.Module, tokens: Tensor, sizes: Sequence[int], **given: Tensor) -> tuple[Tensor, Any]:
        """Logits of a text that is read in passes, and the states at its end."""
        states: Any = {}
        logits, begin = [], 0
        with torch.no_grad():
            for size in sizes:
                part = slice(begin, begin + size)
                out = net(tokens[:, part], states=states, **{name: value[:, part] for name, value in given.items()})
                states, begin, logits = out.states, begin + size, [*logits, out.logits]
        return torch.cat(logits, 1), states


def list_memories(net: Any) -> list[tuple[str, Memory]]:
    """The sites of a network that have a memory."""
    return [(site, mixer) for block in net.each_block() for site, mixer in block.mixers() if isinstance(mixer, Memory)]


def train_segments(net: Any) -> list[Tensor]:
    """Gradients of three segments with truncated backpropagation."""
    tokens = make_random_tokens(3, TOKENS)
    states: Any = {}
    for begin, end in ((0, 6), (6, 14), (14, TOKENS)):
        part = slice(begin, end)
        out = net(tokens[:, part], segments=NAMES[:, part], states=states)
        out.logits.logsumexp(-1)[NAMES[:, part] != 0].mean().backward()
        states = detach_states(out.states)
    return [torch.zeros(()) if weight.grad is None else weight.grad for weight in net.parameters()]
