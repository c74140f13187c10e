"""Weights and the tokenizer they are given: ids that mean other text are found, and rows follow their tokens."""

from __future__ import annotations

import json

import pytest
import torch

from aptlab.checkpoint import find_checkpoint
from aptlab.cli import main
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import CheckpointError
from aptlab.restore.load import load_network
from aptlab.restore.vocabulary import END, check_same_ids, name_tokens, remap_vocabulary
from tests.commands.small_run import train

WORDS = ["<eos>", "a", "b", "c", "ab", "bc"]


def tokenizer(order: list[str], *, byte_level: bool = True) -> JsonTokenizer:
    """A BPE of these tokens, numbered in this order."""
    merges = [[name[0], name[1]] for name in order if len(name) == 2]
    content = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "pre_tokenizer": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        if byte_level else None,
        "added_tokens": [{
            "id": order.index("<eos>"), "content": "<eos>", "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }],
        "model": {"type": "BPE", "vocab": {name: i for i, name in enumerate(order)}, "merges": merges},
    }  # fmt: skip
    return JsonTokenizer(json.dumps(content), "a test")


def test_names_are_pieces_of_text_whatever_the_kind():
    assert name_tokens(tokenizer(WORDS).state()) == {0: END, 1: b"a", 2: b"b", 3: b"c", 4: b"ab", 5: b"bc"}
    assert name_tokens(tokenizer(WORDS, byte_level=False).state())[4] == "ab"
    plain = name_tokens(ByteTokenizer().state())
    assert (plain[97], plain[256], len(plain)) == (b"a", END, 257)
    assert name_tokens({"kind": "other"}) == {}


def test_every_byte_has_its_character():
    from tokenizers.pre_tokenizers import ByteLevel

    from aptlab.restore.vocabulary import make_byte_table

    table = make_byte_table()
    assert set(table) == set(ByteLevel.alphabet())
    assert sorted(table.values()) == list(range(256))
    assert (table["\u0120"], table["\u010a"]) == (32, 10)


def test_equal_ids_pass_and_new_ones_behind_them_too():
    check_same_ids(tokenizer(WORDS).state(), tokenizer([*WORDS, "ca"]).state())
    check_same_ids(ByteTokenizer().state(), ByteTokenizer().state())


def test_other_ids_are_counted_and_the_way_out_is_named():
    with pytest.raises(
        CheckpointError,
        match=r"^tokenizer: 2 of 6 ids mean other text than the weights were trained with, as 1: b'a' -> b'b'; keep "
        r"the tokenizer of the checkpoint, or move the rows of the embedding to the new ids with load=remap",
    ):
        check_same_ids(tokenizer(WORDS).state(), tokenizer(["<eos>", "b", "a", "c", "ab", "bc"]).state())
    with pytest.raises(CheckpointError, match="0 of 0 ids"):
        check_same_ids({"kind": "other"}, ByteTokenizer().state())


def test_rows_follow_their_tokens_and_new_ones_are_means_of_their_parts():
    old, new = tokenizer(WORDS), tokenizer(["ca", "c", "b", "a", "<eos>", "ab"])
    rows = torch.arange(18.0).view(6, 3)
    weights = {"net.embed.weight": rows, "net.head.weight": 2 * rows, "net.norm.weight": torch.ones(3)}
    fresh = {name: torch.full((8, 3), -1.0) for name in weights}
    moved, line = remap_vocabulary(weights, fresh, old.state(), new)
    expected = [(rows[3] + rows[1]) / 2, rows[3], rows[2], rows[1], rows[0], rows[4], fresh["net.embed.weight"][6]]
    assert torch.equal(moved["net.embed.weight"][:7], torch.stack(expected))
    assert torch.equal(moved["net.head.weight"][1], 2 * rows[3])
    assert moved["net.norm.weight"] is weights["net.norm.weight"]
    assert line == "  tokenizer: 5 of 6 rows moved to their new ids, the others are means of their parts"


def test_weights_without_rows_are_refused():
    with pytest.raises(
        CheckpointError, match=r"load=remap: the weights have no net\.embed\.weight, whose rows are moved"
    ):
        remap_vocabulary({}, {}, ByteTokenizer().state(), ByteTokenizer())


@pytest.mark.slow
def test_a_run_of_other_ids_is_refused_and_remapped_when_asked_for(capsys, tmp_path):
    """Two tokenizers of one size, trained on other texts: most ids mean another word."""
    bpe = ("tokenizer=bpe", "tokenizer.vocab=280", "evals=none", "trainer.max_steps=2")
    first = train(*bpe)
    shifted = json.loads((first.path / "tokenizer.json").read_text())
    vocab = shifted["model"]["vocab"]
    turned = {name: number if number == 0 else 1 + number % (len(vocab) - 1) for name, number in vocab.items()}
    shifted["model"]["vocab"] = turned
    (tmp_path / "other.json").write_text(json.dumps(shifted))
    asked = [f"ckpt={first.path}", "tokenizer=file", "tokenizer.path=other.json", "trainer.max_steps=1"]
    assert main(["train", *asked, "load=weights"]) == 2
    told = capsys.readouterr().err
    assert f"tokenizer: {len(vocab) - 1} of {len(vocab)} ids mean other text than the weights were trained with" in told
    assert main(["train", *asked, "load=remap", "optim.lr=1e-9", "run_dir=outputs/remapped"]) == 0
    assert "rows moved to their new ids" in capsys.readouterr().err
    old, new = (load_network(find_checkpoint(path)).net.embed.weight for path in (first.path, "outputs/remapped"))
    for number in range(1, len(vocab)):
        assert torch.allclose(new[1 + number % (len(vocab) - 1)], old[number], atol=1e-6)
