"""The data module, alone and under a Lightning trainer."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

from aptlab.data import module as data_module
from aptlab.data import pairs, rows, sources, tasks, tokenizers
from aptlab.data.module import TextData
from aptlab.data.sources import Stdlib
from aptlab.data.store import split
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import BPE, ByteTokenizer, restore_tokenizer
from aptlab.errors import CheckpointError, ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf"


def make(source, **options):
    options = {"tokenizer": ByteTokenizer(), "context": 16, "batch": 4, "seed": 3, "split": Split(0.2), **options}
    return TextData(source, **options)


class Counter(LightningModule):
    """Remembers which rows it was given."""

    def __init__(self, **seen):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rows, self.val_rows = [], []

    def training_step(self, batch, number):
        self.rows.append(batch["ids"].tolist())
        return self.weight.sum()

    def validation_step(self, batch, number):
        self.val_rows.append(batch["ids"].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, steps, ckpt_path=None, **options):
    task = Counter()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **{"limit_val_batches": 0, **options},
    )
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, task


def test_the_real_stdlib_builds_and_opens():
    data = TextData(Stdlib(parts=["prose"]), tokenizer=ByteTokenizer(), context=256, batch=16, split=Split(0.05))
    data.prepare_data()
    data.setup()
    summary = data.summary()
    assert summary["name"] == "stdlib"
    texts = [text for _, text in Stdlib(parts=["prose"]).documents()]
    val = sum(len(text.encode()) for text in texts if Split(0.05).is_val(text))
    assert summary["val_bytes"] == val > 0
    assert summary["train_bytes"] == sum(len(text.encode()) for text in texts) - val > 2 * val
    assert summary["train_bytes"] + summary["val_bytes"] > 300_000
    batch = next(iter(data.train_dataloader()))
    text = "".join(text for _, text in Stdlib(parts=["prose"]).documents())
    shown = data.tokenizer.decode(batch["tokens"][0][:40])
    assert shown.strip("\ufffd")[:10] in text
    assert data.windows(128).meta["tokens"] > 0


def test_bpe_is_trained_on_the_training_documents_only(texts, monkeypatch):
    seen = []
    train = BPE.train
    monkeypatch.setattr(BPE, "train", lambda self, texts: train(self, iter(seen.extend(texts) or seen)))
    data = make(texts, tokenizer=BPE(vocab=300))
    assert data.vocab_size <= 300
    assert seen == [text for text in texts.texts if not Split(0.2).is_val(text)]


def test_a_tokenizer_from_a_checkpoint_gives_the_same_data(texts):
    first = make(texts, tokenizer=BPE(vocab=300))
    second = make(texts, tokenizer=restore_tokenizer(first.tokenizer.state()))
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.store.val.tokens, second.store.val.tokens)


def test_the_fingerprint_changes_with_a_document_the_tokenizer_and_the_split_but_not_with_context_or_seed(make_texts):
    first = make(make_texts(30)).fingerprint
    assert make(make_texts(30), context=8, seed=9, batch=2).fingerprint == first
    others = [
        make(make_texts(31)).fingerprint,
        make(make_texts(30, words=41)).fingerprint,
        make(make_texts(30), tokenizer=BPE(vocab=300)).fingerprint,
        make(make_texts(30), split=Split(0.2, seed=4)).fingerprint,
    ]
    assert len({first, *others}) == 5


def test_bits_per_byte_count_eos_as_tokens_and_not_as_bytes(texts):
    data = make(texts)
    summary = data.summary()
    assert data.bytes_per_token == summary["val_bytes"] / summary["val_tokens"]
    assert summary["val_tokens"] == summary["val_bytes"] + summary["val_documents"]


def test_tokens_have_the_bytes_of_the_text(texts, monkeypatch):
    assert make(texts).token_bytes.tolist() == [1.0] * 256 + [0.0]
    data = make(texts, tokenizer=BPE(vocab=300))
    assert data.token_bytes[data.store.val.tokens].sum() == data.store.val.sizes.sum()
    # A tokenizer that drops half of what it reads.
    monkeypatch.setattr(ByteTokenizer, "count_bytes", lambda self: np.append(np.full(256, 0.5), 0.0))
    assert make(texts).token_bytes.tolist() == pytest.approx([1.0] * 256 + [0.0])


def test_loaders_under_a_trainer_are_those_of_the_module_alone(texts, tmp_path):
    data = make(texts, val_batches=2)
    _, task = fit(data, tmp_path, 6, limit_val_batches=1.0, val_check_interval=3, check_val_every_n_epoch=None)
    alone = make(texts, val_batches=2)
    assert task.rows == [alone.train_dataloader().batch_at(n)["ids"].tolist() for n in range(6)]
    assert task.val_rows == [batch["ids"].tolist() for batch in alone.val_dataloader()] * 2
    assert len(task.val_rows) == 4


@pytest.mark.parametrize("accumulate", [1, 3])
def test_resuming_twice_under_a_trainer_sees_exactly_the_rows_of_one_run(texts, tmp_path, accumulate):
    options = {"accumulate_grad_batches": accumulate}
    _, whole = fit(make(texts), tmp_path, 60, **options)
    rows, checkpoint = [], None
    for steps in (7, 31, 60):
        trainer, task = fit(make(texts), tmp_path, steps, checkpoint, **options)
        checkpoint = tmp_path / f"{steps}.ckpt"
        trainer.save_checkpoint(checkpoint)
        state = torch.load(checkpoint, weights_only=True)["TextData"]
        rows += task.rows
        assert state["micro_batches"] == len(rows) == steps * accumulate
    assert rows == whole.rows
    per_epoch = make(texts).train_dataloader().rows.batches_per_epoch
    assert make(texts).epoch_of(5 * per_epoch) == 5
    assert make(texts).epoch_of(60) > 0


def test_other_data_or_another_context_is_refused_on_resume(texts, make_texts):
    state = make(texts).state_dict()
    with pytest.raises(
        CheckpointError, match=r"trained on other data: fingerprint .*, now .*; resume with.*load=weights"
    ):
        make(make_texts(61)).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"trained on other data: context 16, now 8; resume with the data"):
        make(texts, context=8).load_state_dict(state)


def test_another_seed_is_allowed_with_a_line(texts, caplog):
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        make(texts, seed=4).load_state_dict(make(texts).state_dict())
    assert caplog.messages == ["resuming with seed=4 in place of 3: rows may repeat"]


def test_another_number_of_devices_continues_at_the_same_row(texts, caplog, monkeypatch):
    one = make(texts, batch=8)
    state = {**one.state_dict(), "micro_batches": 2 * one.train_dataloader().rows.batches_per_epoch + 10}
    monkeypatch.setattr(data_module, "find_rank_share", lambda trainer: (1, 2))
    two = make(texts, batch=8)
    two.load_state_dict(state)
    loader = two.train_dataloader()
    assert divmod(loader.start, loader.rows.batches_per_epoch) == (2, 5)
    assert (loader.rows.plan.rank, loader.rows.plan.world) == (1, 2)
    assert two.state_dict()["micro_batches"] == loader.start
    assert "resuming with 16 rows per global batch in place of 8" in caplog.messages[0]
    halves = [make(texts, batch=4), make(texts, batch=4)]
    halves[0].load_state_dict(state)
    caplog.clear()
    assert halves[0].train_dataloader().start == state["micro_batches"]
    assert caplog.messages == []


def test_validating_with_a_checkpoint_of_other_data_is_allowed(texts, make_texts, tmp_path):
    trainer, task = fit(make(texts), tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer.limit_val_batches = 1
    trainer.validate(
        task, datamodule=make(make_texts(70)), ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False
    )
    assert len(task.val_rows) == 1


def test_bad_values_are_refused_with_their_path(texts):
    with pytest.raises(ConfigError, match=r"^batch=0 must be a finite number >= 1; try batch=16"):
        make(texts, batch=0)
    with pytest.raises(ConfigError, match=r"context=-1 must be a finite number >= 1"):
        make(texts, context=-1)
    with pytest.raises(ConfigError, match=r"^val_batches=0 must be a finite number >= 1"):
        make(texts, val_batches=0)
    with pytest.raises(ConfigError, match=r"^batch=4000 on 1 device needs 4000 rows"):
        make(texts, batch=4000).train_dataloader()
    with pytest.raises(DataError, match=r"context=100000 is longer than the train text"):
        make(texts, context=100_000).train_dataloader()


@pytest.mark.parametrize(
    "path", sorted(path for group in ("source", "data", "tokenizer") for path in (CONF / group).glob("*.yaml"))
)
def test_options_name_real_parameters_and_say_what_they_do(path):
    assert path.read_text().startswith("# ")

    def walk(node):
        where, name = node["_target_"].rsplit(".", 1)
        modules = {m.__name__: m for m in (data_module, pairs, rows, sources, split, tasks, tokenizers)}
        parameters = inspect.signature(getattr(modules[where], name)).parameters
        assert set(node) - {"_target_"} == set(parameters)
        for value in node.values():
            if isinstance(value, dict):
                walk(value)

    walk(yaml.safe_load(path.read_text()))


def test_batches_of_an_epoch_are_those_of_the_loader(texts):
    data = make(texts)
    count = len(data.train_dataloader().rows)
    assert data.batches_per_epoch(1) == data.train_dataloader().rows.batches_per_epoch == count // 4
    assert data.batches_per_epoch(3) == count // 12
    with pytest.raises(ConfigError, match=rf"^batch=4 on {count} devices needs {4 * count} rows"):
        data.batches_per_epoch(count)


def test_a_state_of_other_text_is_refused_before_anything_is_loaded(texts, make_texts):
    state = make(texts).state_dict()
    make(texts).check_state(state)
    with pytest.raises(CheckpointError, match="the checkpoint was trained on other data: fingerprint"):
        make(make_texts(30)).check_state(state)
