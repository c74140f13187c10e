"""Tiny decoders and tiny models of transformers, written as folders and compared."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from aptlab.config import build, compose
from aptlab.models.hf import convert_from_hf, convert_to_hf, describe_decoder, read_folder
from aptlab.models.hf.family_blocks import BLOCKS
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import ClampedSwiGLU, GeGLU, SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.smooth import Plain, PostNorm
from aptlab.restore.hf_import import derive_overrides
from aptlab.testing import make_random_tokens, make_tiny_decoder

CONTEXT = 16
TOLERANCE = 1e-5


def transformers():
    """The module, with its advice switched off."""
    module = pytest.importorskip("transformers")
    module.utils.logging.set_verbosity_error()
    return module


def export(net, folder, dtype="float32", context=CONTEXT):
    """Write a decoder as a folder; its description."""
    described = describe_decoder(net, context=context, eos=60, dtype=dtype)
    weights = convert_to_hf(net, described.family, dtype=getattr(torch, dtype))
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described.config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return described


def kinds_of(folder):
    """The attention implementations that transformers has for a folder's model; sinks and caps have no sdpa."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    return ("eager",) if model_type in ("gpt_oss", "gemma2") else ("eager", "sdpa")


def loaded(folder, kind=None):
    """The folder as transformers loads it, by itself or as told; every weight must find its place."""
    model, report = transformers().AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=kind, dtype="float32", output_loading_info=True
    )
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[name], f"{name}: {report[name]}"
    return model.eval()


def built(source):
    """Our decoder with the weights of a source; one with another block by the command line that an import writes."""
    if source.family in BLOCKS:
        net = build(compose("train", derive_overrides(source)).resolved()["model"]).eval()
        net.load_state_dict(convert_from_hf(source, net.state_dict()))
        return net
    kinds = {"silu": SwiGLU, "gelu": GeGLU, "gelu_pytorch_tanh": partial(GeGLU, approximate="tanh")}
    kind = kinds[source.act]
    if source.clamp is not None:
        kind = partial(ClampedSwiGLU, alpha=source.clamp[0], limit=source.clamp[1])
    parts = source.attention
    net = make_tiny_decoder(
        rope=parts.rope,
        shape=source.shape,
        vocab=source.vocab,
        tied=source.tied,
        norm=partial(RMSNorm, eps=source.eps),
        ffn=partial(kind, bias=source.ffn_bias),
        smooth=partial(PostNorm, eps=source.eps) if source.family.sandwich else Plain,
        attention=partial(
            FullAttention,
            qk_norm=parts.qk_norm,
            qk_norm_eps=source.eps,
            bias=parts.bias,
            window=parts.window,
            sinks=parts.sinks,
        ),
    )
    net.load_state_dict(convert_from_hf(source, net.state_dict()))
    return net


def saved(config, folder, gain=4.0, seed=0):
    """A transformers model with seeded weights, large enough for attention to be sharp, in a folder."""
    module = transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = module.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.add_(0.3 * torch.randn_like(weight))
                elif weight.ndim > 1:
                    weight.mul_(gain)
                else:
                    weight.normal_(std=0.1)
    model.save_pretrained(folder)
    return model


def gap(net, model, tokens, positions=None, segments=None):
    """The largest difference of logits; transformers sees where documents begin by positions that do not follow."""
    given = {} if positions is None else {"position_ids": positions}
    with torch.no_grad():
        expected = model(tokens, use_cache=False, **given).logits
        got = net(tokens, positions=positions, segments=segments).logits
    assert expected.abs().max() > 0.5, "logits are too flat to compare"
    return (got - expected).abs().max().item()


def assert_there_and_back(net, folder):
    """Export, compare with transformers in both attention kinds, and read equal weights back; the source."""
    described = export(net, folder)
    tokens = make_random_tokens(2, 4 * CONTEXT)
    for kind in kinds_of(folder):
        model = loaded(folder, kind)
        assert type(model).__name__ == described.config["architectures"][0]
        for length in (CONTEXT, 4 * CONTEXT):  # in this order: dynamic ropes of transformers keep what they saw
            assert gap(net, model, tokens[:, :length]) <= TOLERANCE, kind
    source = read_folder(folder)
    again = built(source)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, net.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, net(tokens).logits)
    return source


def greedy(net, tokens, count):
    """Tokens continued with the most likely one, without a cache."""
    for _ in range(count):
        with torch.no_grad():
            tokens = torch.cat((tokens, net(tokens).logits[:, -1:].argmax(-1)), dim=1)
    return tokens
