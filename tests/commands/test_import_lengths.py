"""What an import promises about lengths: kept by exports, said where a run changes it, and how texts cross it."""

import json

import pytest
import torch

from aptlab.cli import main
from aptlab.commands import export as export_command
from aptlab.commands import import_ as import_command
from aptlab.restore.hf_lengths import KEY, NO_LIMIT
from aptlab.restore.load import load_network
from aptlab.testing import make_random_tokens
from tests.commands.small_run import texts
from tests.commands.test_import_families import folder
from tests.models.hf.making import loaded
from tests.models.hf.test_from_transformers import L


def imported(name, path, *, limit=None, **config):
    """A run folder of an imported model, whose config.json and tokenizer limit are changed first."""
    folder(name, path / "theirs")
    for file, changes in (("config.json", config), ("tokenizer_config.json", {"model_max_length": limit})):
        values = json.loads((path / "theirs" / file).read_text())
        kept = {key: value for key, value in (values | changes).items() if value is not None or key not in changes}
        (path / "theirs" / file).write_text(json.dumps(kept))
    assert import_command.run([f"path={path / 'theirs'}", f"out={path / 'run'}"]) == 0
    return path / "run"


def exported(run, out):
    export_command.run([f"ckpt={run}", f"out={out}"])
    files = ("config.json", "tokenizer_config.json", "generation_config.json")
    return [json.loads((out / file).read_text()) for file in files]


@pytest.mark.parametrize(
    ("name", "longest", "limit"),
    [
        ("llama llama3", 8 * L, 8 * L),  # as Llama 3.1: factor 4 reaches 4 L
        ("llama yarn", L, 10 * L),  # as Qwen 2.5 with the YaRN of its card: the length is left alone
        ("llama linear", L, None),  # as Vicuna 16k
        ("llama dynamic", L, 2 * L),
        ("llama default", 4 * L, 4 * L),
        ("gemma3", 8 * L, 8 * L),
    ],
)
def test_an_export_promises_what_the_import_did(name, longest, limit, tmp_path, capsys):
    run = imported(name, tmp_path, limit=limit, max_position_embeddings=longest)
    capsys.readouterr()
    config, tokenizer, generation = exported(run, tmp_path / "back")
    assert config["max_position_embeddings"] == longest
    assert tokenizer["model_max_length"] == (limit or NO_LIMIT)
    reach = {"llama yarn": 4 * L, "llama linear": 4 * L}.get(name, longest)
    assert generation["max_length"] == reach
    assert "the imported model had" not in capsys.readouterr().out
    import_command.run([f"path={tmp_path / 'back'}", f"out={tmp_path / 'again'}"])
    first, second = load_network(run), load_network(tmp_path / "again")
    assert (first.net.rope, first.context) == (second.net.rope, second.context)


def test_linear_scaling_is_written_with_the_length_that_readers_multiply(tmp_path):
    run = imported("llama linear", tmp_path, max_position_embeddings=L)
    assert load_network(run).context == L
    assert load_network(run).net.rope.original_len == L


@pytest.mark.slow
def test_runs_from_an_import_keep_its_lengths_until_they_change_them(tmp_path, monkeypatch, capsys):
    run = imported("llama llama3", tmp_path, max_position_embeddings=8 * L, limit=9 * L)
    monkeypatch.chdir(tmp_path)
    small = ["trainer=debug", "trainer.max_steps=1", "data.batch=1", "logger=csv", "device=cpu", "evals=none"]
    small += [f"data.files={texts()}", "data.split.val_fraction=0.3", "data.val_batches=2"]
    same = [f"ckpt={run}", "load=weights", *small, "context=32"]
    assert main(["train", *same, "run_dir=same"]) == 0
    assert load_network("same").meta[KEY]["max_position_embeddings"] == 8 * L
    config, tokenizer, _ = exported("same", tmp_path / "one")
    assert (config["max_position_embeddings"], tokenizer["model_max_length"]) == (8 * L, 9 * L)
    assert main(["train", *same, "rope=yarn", "rope.factor=16", "run_dir=other"]) == 0
    capsys.readouterr()
    config, tokenizer, _ = exported("other", tmp_path / "two")
    assert (config["max_position_embeddings"], tokenizer["model_max_length"]) == (16 * L, 16 * L)
    assert (
        f"max_position_embeddings={16 * L} and the tokenizer's model_max_length={16 * L} follow from this run's rope "
        f"and context; the imported model had {8 * L} and {9 * L}"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["phi3", "llama longrope", "llama dynamic", "llama yarn"])
def test_how_texts_cross_the_trained_length_is_said_at_import(name, tmp_path, capsys):
    imported(name, tmp_path)
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("frequencies change at 16 tokens")
    ]
    assert len(lines) == (name != "llama yarn")
    if name == "phi3":
        assert "crossing=admit), transformers' generate begins with those of short texts and reads the text" in lines[0]
        assert lines[0].endswith("crossing=reprefill does the same")


def test_phi_3_with_reprefill_writes_what_transformers_writes(tmp_path):
    run = imported("phi3", tmp_path, max_position_embeddings=None)
    got, model = load_network(run), loaded(tmp_path / "theirs")
    prompt = make_random_tokens(1, L - 4, vocab=256)
    options = {
        "max_new_tokens": 12,
        "do_sample": False,
        "eos_token_id": None,
        "attention_mask": torch.ones_like(prompt),
    }
    expected = model.generate(prompt, **options)[0, L - 4 :].tolist()
    assert continued(got, prompt, "reprefill") == expected
    assert continued(got, prompt, "admit") != expected


def continued(got, prompt, crossing):
    from aptlab.sample import SamplingRules, generate_tokens

    rules = SamplingRules(temperature=0, crossing=crossing)
    return generate_tokens(got.net, prompt.tolist(), rules=rules, max_new_tokens=12, eos=None)[0]


def test_cfg_prints_the_base_that_the_run_will_use(tmp_path, capsys, monkeypatch):
    run = imported("llama default", tmp_path)
    monkeypatch.chdir(tmp_path)
    for command, more in (("eval", []), ("search", ["target=128"]), ("train", ["load=weights"])):
        capsys.readouterr()
        rope = "longrope" if command == "search" else "yarn"
        assert main([command, f"ckpt={run}", f"rope={rope}", *more, "--cfg"]) == 0
        shown = capsys.readouterr().out
        assert "\n  base: 100.0\n" in shown, command
        assert "original_len: 64\n" in shown, command
    assert main(["eval", "rope=yarn", "rope.base=7", f"ckpt={run}", "--cfg"]) == 0
    assert "\n  base: 7" in capsys.readouterr().out
    assert main(["eval", "rope=yarn", "--cfg"]) == 0
    assert capsys.readouterr().err.startswith("without what the checkpoint says: ckpt=last: ")
    assert main(["eval", "rope=yarn", "ckpt=nowhere", "--cfg"]) != 0
