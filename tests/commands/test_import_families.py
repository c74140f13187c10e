"""`aptlab import` of every family that transformers makes, and `aptlab export` of what became of it."""

import json

import pytest
import torch

from aptlab.commands import export as export_command
from aptlab.commands import import_ as import_command
from aptlab.config import compose
from aptlab.errors import ConfigError
from aptlab.models.hf import build_tokenizer_files
from aptlab.restore.load import load_network
from aptlab.testing import make_random_tokens
from tests.models.hf.block_models import MODELS as BLOCK_MODELS
from tests.models.hf.making import gap, greedy, loaded, saved
from tests.models.hf.test_from_transformers import MODELS, L, made

TRAINED = ["gemma2", "olmo2", "olmo3", "neox", "cohere", "cohere2", "stablelm", "phi"]
NAMES = [
    "llama longrope",
    "llama dynamic",
    "llama yarn attention factor",
    "mistral",
    "qwen2 mixed",
    "qwen3 mixed",
    "smollm3",
    "smollm3 list",
    "phi3",
    "phi3 partial",
    "gemma3",
    "gpt-oss one expert",
    "llama4 dense",
    "llama4 dense, scaled",
    *BLOCK_MODELS,
]
OTHER_LAYOUT = ["llama yarn", "phi3", "qwen2", "gemma3", "smollm3", "gpt-oss one expert"]
OTHER_LAYOUT += ["olmo2", "neox", "stablelm parallel, qk_norm", "phi qk_norm"]
FIRST = ("llama yarn", "phi3", "gemma3", *TRAINED)  # of each layout one; the rest in the slow tests


def mark_others(names):
    """The names, those that are not the first of their kind marked slow."""
    return [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in names]


def folder(name, path, **changes):
    """A model of transformers with a byte tokenizer."""
    kind, own = MODELS[name]
    model = saved(made(kind, **(own | {"vocab_size": 257, "eos_token_id": 256} | changes)), path, gain=2.0)
    for file, text in build_tokenizer_files({"kind": "bytes"}, longest=64).items():
        (path / file).write_text(text, encoding="utf-8")
    return model


@pytest.mark.parametrize("name", mark_others(NAMES))
def test_a_model_goes_in_and_out(name, tmp_path, capsys):
    theirs, run, back = tmp_path / "theirs", tmp_path / "run", tmp_path / "back"
    model = folder(name, theirs)
    assert import_command.run([f"path={theirs}", f"out={run}"]) == 0
    got = load_network(run)
    tokens = make_random_tokens(2, 4 * L, vocab=257)
    assert gap(got.net, model, tokens[:, :L]) <= 1e-5
    assert gap(got.net, model, tokens) <= 1e-5
    assert compose("train", got.meta["overrides"]).resolved() == got.meta["config"]
    assert export_command.run([f"ckpt={run}", f"out={back}"]) == 0
    again = loaded(back)
    assert gap(got.net, again, tokens) <= 1e-5
    prompt = tokens[:, :6]
    if "longrope" not in name and "dynamic" not in name:  # transformers changes the rope under its own cache
        options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        expected = again.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert torch.equal(expected, greedy(got.net, prompt, 8))
    assert "written" in capsys.readouterr().out


@pytest.mark.parametrize("name", mark_others(OTHER_LAYOUT))
def test_a_model_is_imported_in_the_other_layout(name, tmp_path):
    theirs, run, back = tmp_path / "theirs", tmp_path / "run", tmp_path / "back"
    model = folder(name, theirs)
    assert import_command.run([f"path={theirs}", f"out={run}", "layout=interleaved"]) == 0
    got = load_network(run).net
    assert {rule.layout for rule in (got.rope.for_layer(layer).rule for layer in range(3)) if rule} == {"interleaved"}
    tokens = make_random_tokens(2, 4 * L, vocab=257)
    assert gap(got, model, tokens) <= 1e-5
    export_command.run([f"ckpt={run}", f"out={back}"])
    assert gap(got, loaded(back), tokens) <= 1e-5
    import_command.run([f"path={back}", f"out={tmp_path / 'again'}"])
    import_command.run([f"path={theirs}", f"out={tmp_path / 'plain'}"])
    plain, again = (load_network(tmp_path / name).net.state_dict() for name in ("plain", "again"))
    for key, weight in plain.items():
        assert torch.equal(again[key], weight), key


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss one expert", *TRAINED])
def test_an_imported_model_trains(name, tmp_path):
    folder(name, tmp_path / "theirs")
    import_command.run([f"path={tmp_path / 'theirs'}", f"out={tmp_path / 'run'}"])
    net = load_network(tmp_path / "run").net.train()
    tokens = make_random_tokens(2, 32, vocab=257)
    losses = []
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(net(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_contradicting_lengths_are_told(tmp_path, capsys):
    theirs = tmp_path / "theirs"
    folder("llama yarn", theirs)
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    import_command.run([f"path={theirs}", f"out={tmp_path / 'run'}"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("warning: rope_parameters.factor=4 and max_position_embeddings=256 / ")
    assert load_network(tmp_path / "run").net.rope.factor == 4


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="layout: no such value 'quarter'; allowed: half, interleaved"):
        import_command.run([f"path={tmp_path}", f"out={tmp_path / 'run'}", "layout=quarter"])


def test_experts_are_refused_by_name(tmp_path):
    config = {"model_type": "gpt_oss", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=r"model_type=gpt_oss with num_local_experts=128 cannot be imported: .* no mixture of experts"
    ):
        import_command.run([f"path={tmp_path}", f"out={tmp_path / 'run'}"])
