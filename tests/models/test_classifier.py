"""A classifier: what it sees, what it gives, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch

from aptlab.config import build, compose
from aptlab.errors import AptlabError, ConfigError
from aptlab.models.classifier import PatchEmbedding, TokenInputs, average_tokens


def make(*words: str):
    node = compose("train", ["scenario=split_digits", "size=debug", *words]).resolved()["task"]["net"]
    torch.manual_seed(0)
    return build(node).eval()


def test_images_give_logits_and_the_features_that_the_head_reads():
    net = make()
    output = net(torch.rand(3, 1, 8, 8))
    assert output.logits.shape == (3, 10)
    assert output.hidden.shape == (3, 32)
    torch.testing.assert_close(output.logits, net.head(output.hidden))


def test_every_patch_is_seen_by_every_other():
    """Without a causal mask, and without positions, the order of the patches does not matter."""
    net = make("embed=none", "rope=none")
    images = torch.rand(2, 1, 8, 8)
    turned = images.view(2, 1, 4, 2, 8).flip(2).reshape(2, 1, 8, 8)  # rows of patches, bottom up
    torch.testing.assert_close(net(images).logits, net(turned).logits)
    assert not torch.allclose(make()(images).logits, make()(turned).logits)


def test_patches_are_read_row_by_row():
    patches = PatchEmbedding(4, channels=1, patch=2)
    torch.nn.init.eye_(patches.project.weight)
    torch.nn.init.zeros_(patches.project.bias)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert patches(image)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_padding_counts_nowhere():
    net = make("+task.net.inputs.vocab=20", "~task.net.inputs.channels", "~task.net.inputs.patch", TOKENS)
    tokens, segments = torch.randint(20, (1, 6)), torch.ones(1, 8, dtype=torch.int64)
    padded = torch.cat((tokens, torch.zeros(1, 2, dtype=torch.int64)), 1)
    segments[:, 6:] = 0
    torch.testing.assert_close(net(padded, segments=segments).logits, net(tokens).logits)
    assert average_tokens(torch.ones(1, 2, 3), torch.zeros(1, 2)).tolist() == [[0.0] * 3]


TOKENS = f"task.net.inputs._target_=aptlab.models.{TokenInputs.__name__}"


def test_a_width_is_the_network_that_has_its_units_alone():
    net, images = make("ffn=matformer"), torch.rand(3, 1, 8, 8)
    assert net.widths == (1.0, 0.5, 0.25, 0.125)
    assert torch.equal(net(images, width=1.0).logits, net(images).logits)
    half, found = copy.deepcopy(net), net(images, width=0.5).logits
    for block in half.each_block():
        block.keep_width(0.5)
    assert torch.equal(half(images).logits, found)
    assert not torch.equal(net(images).logits, found)
    with pytest.raises(ConfigError, match=r"^width=0.3: block 0 has the widths 1, 0.5, 0.25, 0.125; use one of them"):
        net(images, width=0.3)
    with pytest.raises(ConfigError, match=r"^width=0.5: block 0 has no nested layer"):
        make()(images, width=0.5)


def test_images_of_other_sizes_and_too_few_classes_are_refused():
    with pytest.raises(AptlabError, match=r"images of 1 channels and 8 x 7 pixels are no whole patches; the model"):
        make()(torch.rand(1, 1, 8, 7))
    with pytest.raises(ConfigError, match=r"classes=1 leaves nothing to tell apart; use 2 or more"):
        make("task.net.classes=1")
