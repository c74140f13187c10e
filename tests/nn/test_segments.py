"""A text read in segments: states go in and come out, documents go on from segment to segment."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from aptlab.errors import AptlabError
from aptlab.nn.attention import LinearAttention
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.rope import IRope, Standard
from aptlab.nn.segments import (
    DocumentCount,
    compute_segment_lengths,
    count_documents,
    count_state_bytes,
    detach_states,
    make_plain_states,
    move_states,
    reset_states,
    select_rows,
)
from aptlab.testing import make_random_tokens, make_tiny_decoder

# Row 0 changes its document at 5, row 1 at 3 and 9, row 2 has padding inside and at its end.
NAMES = torch.tensor([[4] * 5 + [5] * 7, [7] * 3 + [8] * 6 + [9] * 3, [2] * 4 + [0] * 3 + [2] * 3 + [0] * 2])
ROPES = {"standard": Standard(), "blocks": IRope(inner=Standard(), interval=2, chunk=4, growth=None, qk_norm=False)}


def read_segments(net: nn.Module, tokens: Tensor, sizes: list[int], **given: Tensor) -> tuple[Tensor, Any]:
    """The logits of a text that is read in segments, and the states at its end."""
    states: Any = {}
    logits = []
    for begin, size in zip(torch.tensor([0, *sizes]).cumsum(0).tolist(), sizes, strict=False):
        part = slice(begin, begin + size)
        out = net(tokens[:, part], states=states, **{name: value[:, part] for name, value in given.items()})
        states, logits = out.states, [*logits, out.logits]
    return torch.cat(logits, 1), states


def test_places_count_within_documents():
    before = DocumentCount(torch.tensor([2, 0, 9]), torch.tensor([4, 0, 3]))
    count = count_documents(NAMES, before)
    assert count.place[0].tolist() == [2, 3, 4, 5, 6, *range(7)]
    assert count.place[1].tolist() == [0, 1, 2, *range(6), 0, 1, 2]
    assert count.place[2][count.real[2]].tolist() == list(range(7))
    assert count.number.amax(1).tolist() == [1, 3, 1]
    assert count.number[0, 0] == 0
    assert count.after.seen.tolist() == [7, 3, 7]
    assert count.after.document.tolist() == [5, 9, 2]


def test_lengths_of_segments_of_any_name():
    names, positions = torch.tensor([[900, 900, 7, 7, 7, 0]]), torch.tensor([[41, 42, 0, 1, 2, 0]])
    assert compute_segment_lengths(positions, names).tolist() == [[43, 43, 3, 3, 3, 1]]


@pytest.mark.parametrize("sizes", [[12], [4, 8], [1] * 12, [5, 6, 1]], ids=str)
@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
def test_segments_are_the_whole_text(rope, packed, sizes):
    net, tokens = make_tiny_decoder(attention=LinearAttention, rope=ROPES[rope]), make_random_tokens(3, 12)
    given = {"segments": NAMES} if packed else {}
    with torch.no_grad():
        whole = net(tokens, states={}, **given).logits
        got, states = read_segments(net, tokens, sizes, **given)
    real = NAMES != 0 if packed else torch.ones_like(tokens, dtype=torch.bool)
    assert torch.allclose(got[real], whole[real], atol=2e-5)
    assert states["positions"].seen.tolist() == ([7, 3, 7] if packed else [12] * 3)


def test_positions_go_on_where_the_segment_before_was_given_some():
    net, tokens = make_tiny_decoder(attention=LinearAttention), make_random_tokens(1, 8)
    with torch.no_grad():
        whole = net(tokens, positions=torch.arange(30, 38).unsqueeze(0)).logits
        first = net(tokens[:, :5], positions=torch.arange(30, 35).unsqueeze(0))
        second = net(tokens[:, 5:], states=first.states)
    assert torch.allclose(second.logits, whole[:, 5:], atol=2e-5)
    assert second.states["positions"].seen.tolist() == [38]


def test_a_reset_row_is_a_fresh_one_and_others_stay():
    net, tokens = make_tiny_decoder(attention=LinearAttention), make_random_tokens(2, 9)
    with torch.no_grad():
        states = net(tokens[:, :5]).states
        got = net(tokens[:, 5:], states=reset_states(states, torch.tensor([True, False]))).logits
        goes_on, fresh = net(tokens[:, 5:], states=states).logits, net(tokens[:, 5:], states={}).logits
        alone = net(tokens[1:, 5:], states=select_rows(states, torch.tensor([1]))).logits
    assert torch.allclose(got[0], fresh[0], atol=1e-6)
    assert torch.equal(got[1], goes_on[1])
    assert torch.allclose(alone[0], goes_on[1], atol=1e-6)
    assert not torch.allclose(fresh, goes_on, atol=1e-3)
    broken = {"0/attention": (torch.full((2, 3), torch.nan), torch.ones(2))}
    assert reset_states(broken, torch.tensor([True, True]))["0/attention"][0].tolist() == [[0.0] * 3] * 2


def test_states_are_saved_as_plain_values_and_go_on():
    net, tokens = make_tiny_decoder(attention=LinearAttention), make_random_tokens(2, 9)
    with torch.no_grad():
        states = net(tokens[:, :5]).states
        file = io.BytesIO()
        torch.save(make_plain_states(states), file)
        file.seek(0)
        loaded = move_states(torch.load(file, weights_only=True), "cpu")
        assert torch.equal(net(tokens[:, 5:], states=loaded).logits, net(tokens[:, 5:], states=states).logits)
    assert count_state_bytes(loaded) == count_state_bytes(states) > 0


def train_two_segments(net: nn.Module, *, detached: bool) -> list[Tensor]:
    """Gradients of the second segment's loss."""
    tokens, names = make_random_tokens(2, 12), NAMES[:2]
    first = net.train()(tokens[:, :5], segments=names[:, :5], states={})
    states = detach_states(first.states) if detached else first.states
    net(tokens[:, 5:], segments=names[:, 5:], states=states).logits.logsumexp(-1).mean().backward()
    return [torch.zeros(()) if weight.grad is None else weight.grad for weight in net.parameters()]


def test_gradients_go_back_through_states_that_are_not_detached_and_recomputed_blocks_have_the_same():
    grads = {}
    for detached in (True, False):
        plain, again = (make_tiny_decoder(attention=LinearAttention) for _ in range(2))
        again.blocks = nn.ModuleList(checkpoint_wrapper(block) for block in again.blocks)
        grads[detached] = train_two_segments(plain, detached=detached)
        recomputed = train_two_segments(again, detached=detached)
        assert all(torch.equal(a, b) for a, b in zip(grads[detached], recomputed, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(grads[True], grads[False], strict=True))


def test_segments_compile_as_one_graph():
    net, tokens = make_tiny_decoder(attention=LinearAttention), make_random_tokens(3, 12)
    torch._dynamo.reset()
    compiled: Any = torch.compile(net, fullgraph=True, backend="eager")
    with torch.no_grad():
        got, _ = read_segments(compiled, tokens, [6, 6], segments=NAMES)
        expected, _ = read_segments(net, tokens, [6, 6], segments=NAMES)
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"9/attention": torch.zeros(2)}, r"states has 9/attention, and the sites .* are 0/attention, 1/attention"),
        ({"0/attention": torch.zeros(3)}, r"states are those of 3 rows and this pass has 2; select_rows takes some"),
    ],
)
def test_states_of_another_model_or_batch_are_refused(given, message):
    with pytest.raises(AptlabError, match=message):
        make_tiny_decoder()(make_random_tokens(2, 4), states=given)


def test_states_do_not_go_with_a_cache_or_with_both_directions():
    net, tokens = make_tiny_decoder(), make_random_tokens(1, 4)
    with pytest.raises(AptlabError, match="states of the segment before do not go with a cache"):
        net(tokens, states={}, cache=net.new_cache(1, 4))
    with pytest.raises(AptlabError, match="states of the segment before do not go with a pass that is not causal"):
        ForwardContext(4, causal=False).start_segment({}, 1)
    with pytest.raises(AptlabError, match=r"a segment of row 0 comes back after another one, .*side by side"):
        net(tokens, states={}, segments=torch.tensor([[1, 2, 1, 1]]))
