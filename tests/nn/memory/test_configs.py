"""The group `memory` in whole models: every option trains, in mixed precision too, and what cannot be is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aptlab.config import build, compose
from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError
from aptlab.models.hf import describe_decoder
from aptlab.nn.segments import detach_states
from aptlab.restore.onnx_export import refuse_memory
from aptlab.testing import make_random_tokens
from aptlab.testing.memory import list_memories

OPTIONS = sorted(read_option_index().groups["memory"])
WORDS = {"knn": ["memory.layers=[-1]"]}  # the fourth layer from the end is no layer of a model of two
BLOCKS = sorted(read_option_index().groups["block"])


def build_net(option: str, *words: str) -> Any:
    torch.manual_seed(0)
    given = ["size=debug", "vocab=61", f"memory={option}", *WORDS.get(option, []), *words]
    return build(compose("train", given).resolved()["model"])


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains_over_segments_in_mixed_precision(option):
    net, tokens = build_net(option), make_random_tokens(2, 24)
    optimizer = build(compose("train", ["size=debug"]).resolved()["optim"]).make(net)
    states: Any = {}
    for begin in (0, 12):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = net(tokens[:, begin : begin + 12], states=states)
        optimizer.zero_grad()
        out.logits.float().logsumexp(-1).mean().backward()
        optimizer.step()
        states = detach_states(out.states)
    assert all(weight.isfinite().all() for weight in net.parameters())
    assert len(list_memories(net)) == (0 if option == "none" else 2)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_takes_a_memory(block):
    net = build_net("xl", f"block={block}")
    assert len(list_memories(net)) == 2
    states = net(make_random_tokens(1, 5)).states
    assert set(states) == {"positions", *(site for site, _ in list_memories(net))}


def test_linear_attention_takes_none():
    with pytest.raises(ConfigError, match=r"memory=infini is built around softmax attention, .*LinearAttention"):
        build_net("infini", "attention=linear")
    with pytest.raises(ConfigError, match=r"layers=\[-4\] of the memory has -4"):
        build_net("knn", "memory.layers=[-4]")


def test_a_model_that_sees_all_tokens_takes_none():
    node = compose("train", ["size=debug", "task=classification", "memory=xl"]).resolved()["task"]["net"]
    with pytest.raises(ConfigError, match=r"memory=xl at 0/attention reads from left to right, .* use memory=none"):
        build(node)


def test_an_encoder_takes_none():
    with pytest.raises(ConfigError, match="memory=xl reads from left to right, and the encoder's site"):
        build_net("xl", "model=apt", "task=seq2seq")


def test_no_format_of_export_holds_a_memory():
    net = build_net("xl")
    with pytest.raises(ConfigError, match=r"memory=XLMemory cannot be exported to format=hf.*memory=none"):
        describe_decoder(net, context=16, dtype="float32")
    with pytest.raises(ConfigError, match=r"memory=xl cannot be exported to format=onnx: .*memory=none"):
        refuse_memory(net)
    refuse_memory(build_net("none"))
