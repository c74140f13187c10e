"""Token embeddings with a factor: the stream starts larger, the table and a tied head stay as they are."""

from functools import partial

import pytest
import torch

from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.nn.embedding import ScaledEmbedding
from aptlab.testing import make_random_tokens, make_tiny_decoder

SCALED = "model.embedding={_target_:aptlab.nn.embedding.ScaledEmbedding,scale:12.0}"


def test_rows_are_multiplied_and_the_table_is_not():
    layer = ScaledEmbedding(11, 4, scale=3.0)
    tokens = make_random_tokens(2, 5, vocab=11)
    assert torch.equal(layer(tokens), 3.0 * layer.weight[tokens])
    layer(tokens).sum().backward()
    assert layer.weight.grad.max().item() >= 3.0


def test_a_table_holds_the_factor_where_the_head_is_its_own():
    tokens = make_random_tokens(2, 12)
    scaled = make_tiny_decoder(tied=False, embedding=partial(ScaledEmbedding, scale=3.0))
    plain = make_tiny_decoder(tied=False)
    plain.load_state_dict(scaled.state_dict())
    with torch.no_grad():
        assert (scaled(tokens).logits - plain(tokens).logits).abs().max() > 0.1
        plain.embed.weight.mul_(3.0)
        assert torch.equal(scaled(tokens).logits, plain(tokens).logits)


def test_a_tied_head_is_the_table_without_the_factor():
    torch.manual_seed(0)
    node = compose("train", ["size=debug", "vocab=257", SCALED]).resolved()["model"]
    net = build(node)
    assert net.head.weight is net.embed.weight
    assert net.embed.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.embed_tokens(make_random_tokens(2, 40), None).std().item() == pytest.approx(0.24, rel=0.1)


def test_a_factor_must_be_positive():
    with pytest.raises(ConfigError, match=r"model\.embedding\.scale: must be a finite number > 0, got -1"):
        check(compose("train", ["vocab=257", SCALED, "model.embedding.scale=-1"]))
