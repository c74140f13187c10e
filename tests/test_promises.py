"""What every part of a network promises, walked over every option of every group: a new one is in it by being there."""

from __future__ import annotations

import copy
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aptlab.config import build, compose
from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError
from aptlab.models import Decoder
from aptlab.models.hf import convert_from_hf, read_folder
from aptlab.nn.positions.rotary import Rotary
from aptlab.objectives import compute_token_nll
from aptlab.optim import AdamW
from aptlab.optim.adamw import make_parameter_groups
from aptlab.testing import decode_in_chunks, make_random_tokens
from tests.models.hf.making import export

GROUPS = ("rope", "bias", "embed", "attention", "ffn", "norm", "smooth", "block", "model")


def names_decoder(group: str, name: str) -> bool:
    """Whether an option is part of a decoder or one itself; networks of classes have walks of their own."""
    text = read_option_index().groups[group][name].path.read_text(encoding="utf-8")
    target = re.search(r"^_target_: (\S+)", text, re.MULTILINE)
    return group != "model" or target is None or target[1] == "aptlab.models.Decoder"


ALL = [(group, name) for group in GROUPS for name in sorted(read_option_index().groups[group])]
OPTIONS = [pair for pair in ALL if names_decoder(*pair)]
PRESETS = [pair for pair in OPTIONS if pair[0] == "model" and pair[1] != "decoder"]  # each a layout of Hugging Face
VOCAB, CONTEXT = 61, 32
TOKENS = make_random_tokens(2, CONTEXT, vocab=VOCAB)


class Nets:
    """Networks with an option and random weights; those of a seed are equal and share nothing."""

    def __init__(self, group: str, option: str) -> None:
        words = ["size=debug", f"context={CONTEXT}", "trainer=debug", f"{group}={option}"]
        self.pair, self.node = (group, option), {**compose("train", words).resolved()["model"], "vocab": VOCAB}
        self._first = functools.cache(self.build)

    def build(self, seed: int) -> Decoder:
        torch.manual_seed(seed)
        net = build(self.node)
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        return net

    def make(self, seed: int = 0) -> Decoder:
        return copy.deepcopy(self._first(seed))


def pass_through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@torch.no_grad()
def read_logits(net: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    return net.eval()(tokens).logits


def check_matrices_decay_and_nothing_else_does(nets: Nets) -> None:
    """A matrix is the weight of an `nn.Linear`; frequencies, tables of positions, norms and biases stay."""
    net = nets.make()
    matrices = {id(module.weight) for module in net.modules() if isinstance(module, nn.Linear)}
    matrices -= {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    names = {id(weight): name for name, weight in net.named_parameters()}
    decayed, spared = ({id(weight) for weight in found["params"]} for found in make_parameter_groups(net, 0.1))
    learned = {id(weight) for weight in net.parameters() if weight.requires_grad}
    assert {names[i] for i in decayed} == {names[i] for i in matrices & learned}
    assert (decayed | spared, decayed & spared) == (learned, set())


def check_layers_and_networks_share_no_weight(nets: Nets) -> None:
    """What is shared stands outside the blocks: rotations, biases of all layers."""
    net, other = nets.build(0), nets.build(0)
    blocks = [{weight.data_ptr() for weight in block.parameters()} for block in net.blocks]
    assert all(not first & second for at, first in enumerate(blocks) for second in blocks[:at])
    mine, theirs = ({weight.data_ptr() for weight in made.parameters()} for made in (net, other))
    assert not mine & theirs
    assert torch.equal(read_logits(net), read_logits(other))


def check_half_precision_keeps_angles_exact(nets: Nets) -> None:
    net, half = nets.make().eval(), nets.make().bfloat16()
    logits = read_logits(half)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    far = torch.tensor([[0, 1, 1_000, 4_001]])
    for exact, rounded in zip(find_rotations(net), find_rotations(half), strict=True):
        for first, second in zip(exact.angles(far), rounded.angles(far), strict=True):
            assert (first is None) == (second is None)
            assert first is None or second is None or torch.equal(first, second)


def find_rotations(net: nn.Module) -> Iterator[Rotary]:
    return (module for module in net.modules() if isinstance(module, Rotary))


def check_the_state_is_the_whole_network_at_any_length(nets: Nets) -> None:
    net, other = nets.make(), nets.make(seed=1)
    assert not torch.equal(read_logits(net, TOKENS[:, :5]), read_logits(other, TOKENS[:, :5]))
    other.load_state_dict(pass_through_a_file(net.state_dict()), strict=True)
    assert torch.equal(read_logits(net), read_logits(other))


def check_a_cache_changes_no_logit(nets: Nets) -> None:
    net = nets.make().eval()
    assert (decode_in_chunks(net, TOKENS, [7, 1, 3]) - read_logits(net)).abs().max() < 2e-5


def check_a_step_after_a_pause_is_the_step_without_one(nets: Nets) -> None:
    """Weights and optimizer state go through a file between two steps, and end equal to the bit."""
    rule = AdamW(lr=1e-2)
    whole, first, second = nets.make(), nets.make(), nets.make(seed=1)
    take_steps(whole, rule.make(whole), range(3))
    before, after = rule.make(first), rule.make(second)
    take_steps(first, before, range(2))
    second.load_state_dict(pass_through_a_file(first.state_dict()))
    after.load_state_dict(pass_through_a_file(before.state_dict()))
    take_steps(second, after, range(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def take_steps(net: Decoder, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        row = make_random_tokens(2, 17, vocab=VOCAB, seed=step)
        optimizer.zero_grad()
        compute_token_nll(net.train()(row[:, :-1]).logits, row[:, 1:]).backward()
        optimizer.step()


def check_an_export_comes_back_or_is_refused_with_a_way_out(nets: Nets, folder: Path) -> None:
    net, refusal = nets.make().eval(), ""
    try:
        export(net, folder, context=CONTEXT)
    except ConfigError as error:
        refusal = str(error)
    if refusal:
        assert re.search("train with|keep the checkpoint|can be exported", refusal), refusal
        assert nets.pair not in PRESETS, refusal
        return
    source, again = read_folder(folder), nets.make(seed=1)
    weights = {name: weight for name, weight in net.state_dict().items() if not name.startswith("rotaries.")}
    again.load_state_dict(convert_from_hf(source, weights), strict=False)
    again.swap_rope(source.attention.rope)  # the same rotation in the pairs of the layout, learned frequencies fixed
    assert (read_logits(again) - read_logits(net)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("group", "option"),
    # Rotary rules have contracts of their own in the default tests.
    [pytest.param(*pair, id="=".join(pair), marks=pytest.mark.slow if pair[0] == "rope" else ()) for pair in OPTIONS],
)
def test_an_option_keeps_every_promise(group, option, tmp_path):
    nets = Nets(group, option)
    check_matrices_decay_and_nothing_else_does(nets)
    check_layers_and_networks_share_no_weight(nets)
    check_half_precision_keeps_angles_exact(nets)
    check_the_state_is_the_whole_network_at_any_length(nets)
    check_a_cache_changes_no_logit(nets)
    check_a_step_after_a_pause_is_the_step_without_one(nets)
    check_an_export_comes_back_or_is_refused_with_a_way_out(nets, tmp_path)
