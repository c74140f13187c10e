"""Data of a checkpoint as an earlier version wrote them are the data of today."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from aptlab.checkpoint import load_checkpoint, save_checkpoint
from aptlab.config import build, compose
from aptlab.data.rows import Mixed, Packed
from aptlab.data.sources import Stdlib, TextFiles
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.restore.data import build_data, modernize_choices, modernize_config, modernize_overrides
from aptlab.training.plan import plan_training
from tests.commands.trained import write_texts

SPLIT = {"_target_": "aptlab.data.store.split.Split", "val_fraction": 0.3, "seed": 0}


def old_config(**data: Any) -> dict[str, Any]:
    """A configuration without the group `source`."""
    source = {"_target_": "aptlab.data.sources.TextFiles", "files": "a.jsonl", "field": "text", "on_bad": "error"}
    common = {"source": source, "tokenizer": {"_target_": "aptlab.data.tokenizers.ByteTokenizer"}, "context": 32}
    common |= {"seed": 3, "batch": 4, "val_batches": 2, "split": SPLIT, "cache": None}
    return {"context": 32, "seed": 3, "data": {"_target_": "aptlab.data.module.TextData", **common, **data}}


def test_masks_and_mixes_are_rows():
    plain = modernize_config(old_config(document_mask=True))
    assert build_data(plain, tokenizer=ByteTokenizer()).rows == Packed(document_mask=True)
    assert plain["source"]["files"] == "a.jsonl"
    mix = {"_target_": "aptlab.data.mixed.Mix", "original_len": 8, "short": 0.5, "packed": 0.2}
    mixed = modernize_config(old_config(_target_="aptlab.data.mixed.MixedData", mix=mix))
    assert build_data(mixed, tokenizer=ByteTokenizer()).rows == Mixed(original_len=8, short=0.5, packed=0.2)
    assert modernize_config(mixed) == mixed


def test_a_configuration_of_today_is_left_as_it_is():
    plain = compose("train", ["data.files=a.txt"]).resolved()
    assert modernize_config(plain) == plain
    assert modernize_overrides(["data=mine", "data.field=x"], plain) == ["data=mine", "data.field=x"]
    assert modernize_config({}) == {}


def test_overrides_and_choices_are_in_the_words_of_today():
    assert modernize_overrides(["data=text", "data.files=a.txt"], old_config()) == ["source=text", "source.files=a.txt"]
    assert modernize_choices({"data": "text", "rope": "yarn"}) == {"data": "packed", "rope": "yarn", "source": "text"}
    assert modernize_choices({"data": "mixed"}) == {"data": "mixed", "source": "stdlib"}
    assert modernize_choices({}) == {}


def test_source_and_rows_may_each_be_others():
    config = modernize_config(old_config(document_mask=False))
    other = {"_target_": "aptlab.data.sources.Stdlib", "parts": ["code"]}
    made = build_data(config, tokenizer=ByteTokenizer(), source=other)
    assert (made.source, made.context, made.batch) == (Stdlib(parts=["code"]), 32, 4)
    rows = {"_target_": "aptlab.data.rows.Mixed", "original_len": 8}
    node = {**config["data"], "source": None, "rows": rows}
    made = build_data(config, tokenizer=ByteTokenizer(), data=node)
    assert (made.source, made.rows) == (TextFiles(files="a.jsonl"), Mixed(original_len=8))


@pytest.mark.parametrize("rows", ["packed", "mixed"])
def test_a_run_of_before_is_resumed_where_it_was(rows, tmp_path, caplog):
    """The checkpoint is one of today, with overrides, options, configuration and state as they were written before."""
    texts = write_texts(tmp_path / "a.jsonl")
    mixed = ["rope=yarn", "rope.original_len=8"] if rows == "mixed" else []
    words = ["size=debug", "context=32", "data.batch=4", f"source.files='{texts}'", *mixed]
    config = compose("train", ["source=text", f"data={rows}", *words]).resolved()
    data = build(config["data"])
    state = {**data.state_dict(), "micro_batches": 5}
    old = {**config, "data": {key: value for key, value in config["data"].items() if key != "rows"}}
    old["data"] |= {"mix": config["data"]["rows"]} if rows == "mixed" else {"document_mask": False}
    if rows == "mixed":  # its source was given by target, without the other keys
        old["data"]["source"] = {key: config["source"][key] for key in ("_target_", "files")}
    old.pop("source")
    overrides = [
        f"data={'mixed' if rows == 'mixed' else 'text'}",
        *(f"data.{w}" if "source" in w else w for w in words),
    ]
    if rows == "mixed":
        overrides[1:1] = ["data.source._target_=aptlab.data.sources.TextFiles", "~data.source.parts"]
    meta = {"version": "0", "config": old, "overrides": overrides, "choices": {"data": overrides[0][5:]}, "step": 5}
    meta |= {"run_dir": str(tmp_path / "run"), "fingerprint": data.fingerprint}
    name = "MixedData" if rows == "mixed" else "TextData"
    path = tmp_path / "run" / "checkpoints" / "step-00000005.ckpt"
    save_checkpoint({"state_dict": {}, "global_step": 5, name: state, "aptlab": meta}, path)
    made = plan_training([f"ckpt={path}"])
    assert made.resume, made.notes
    assert made.config.cfg.source.files == str(texts)
    again = build(made.config.cfg.data)
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        again.load_state_dict(load_checkpoint(path)["TextData"])
    assert caplog.messages == []
    assert next(iter(again.train_dataloader()))["ids"].equal(data.train_dataloader().batch_at(5)["ids"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "cache"))
