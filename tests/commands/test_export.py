"""`aptlab export` and `aptlab import`: folders, files, messages, and the way there and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aptlab.commands import export as export_command
from aptlab.commands import import_ as import_command
from aptlab.config import build, compose
from aptlab.errors import AptlabError, CheckpointError, ConfigError, DataError
from aptlab.restore.hf_export import export_network, replace_folder
from aptlab.restore.hf_import import convert_hf_folder, write_checkpoint
from aptlab.restore.load import load_network, restore_network
from aptlab.testing import make_random_tokens

BYTES = {"kind": "bytes"}
FILES = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
FILES += ["tokenizer.json", "tokenizer_config.json"]


def state_of(*overrides, tokenizer=BYTES, vocab=257):
    config = compose("train", ["size=debug", "context=32", f"vocab={vocab}", *overrides])
    torch.manual_seed(0)
    net = build(config.resolved()["model"])
    meta = {"version": "0", "config": config.resolved(), "overrides": config.overrides, "choices": config.choices}
    meta |= {"vocab": vocab, "tokenizer": tokenizer, "fingerprint": "", "step": 7, "run_dir": "", "wandb_id": None}
    weights = {f"net.{name}": weight for name, weight in net.state_dict().items()}
    return {"state_dict": weights, "aptlab": meta, "global_step": 7, "epoch": 0}


def loaded_of(*overrides, path="somewhere.ckpt", **values):
    return restore_network(state_of(*overrides, **values), path=Path(path))


def saved(folder, *overrides, **values):
    write_checkpoint(state_of(*overrides, **values), folder / "checkpoints" / "step-00000007.ckpt")
    return folder


def test_a_loaded_network_is_the_one_that_was_saved():
    state = state_of("rope=yarn", "smooth=left_spin", "size.kv_heads=1")
    loaded = restore_network(state, path=Path("x.ckpt"))
    for name, weight in loaded.net.state_dict().items():
        assert torch.equal(weight, state["state_dict"][f"net.{name}"])
    assert not loaded.net.training
    assert (loaded.step, loaded.tokenizer.state(), loaded.net.vocab) == (7, BYTES, 257)
    assert loaded.net.shape.kv_heads == 1
    assert type(loaded.net.rope).__name__ == "YaRN"
    assert loaded.config["context"] == 32


def test_a_checkpoint_of_another_program_is_refused():
    with pytest.raises(CheckpointError, match=r"x\.ckpt holds no aptlab configuration; give a checkpoint written by"):
        restore_network({"state_dict": {}}, path=Path("x.ckpt"))


def test_weights_that_do_not_fit_their_own_configuration_are_listed():
    state = state_of()
    weights = state["state_dict"]
    weights["net.norm.scale"] = weights.pop("net.norm.weight")
    weights["net.blocks.0.ffn.down.weight"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"the weights in x\.ckpt do not fit") as caught:
        restore_network(state, path=Path("x.ckpt"))
    lines = str(caught.value).splitlines()
    assert "norm.weight is missing" in lines
    assert "norm.scale is not part of this model" in lines
    assert "blocks.0.ffn.down.weight has sizes [2, 2], the model has [32, 64]" in lines


def test_many_problems_are_cut_short():
    state = state_of() | {"state_dict": {}}
    with pytest.raises(CheckpointError, match=r"… and \d+ more"):
        restore_network(state, path=Path("x.ckpt"))


def test_the_folder_holds_everything_and_nothing_else(tmp_path):
    lines = export_network(loaded_of("rope=ntk"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "rope=ntk is written as the default rope with its scaled base" in lines[0]
    assert lines[1] == f"written {tmp_path / 'out'}: LlamaForCausalLM, float32"
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 256
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rope=ntk is written as" in card
    assert "7 optimizer steps" in card


def test_the_card_tells_nothing_about_the_machine(tmp_path):
    loaded = loaded_of()
    words = ["rope=yarn", "run_dir=/home/someone/secret", "paths.root=/data", "logger.api_key=abcdef123456"]
    export_network(replace(loaded, meta=loaded.meta | {"overrides": words}), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Overrides: rope=yarn\n" in card
    for word in ("someone", "/data", "abcdef"):
        assert word not in card


def test_the_card_has_the_result_of_the_run(tmp_path):
    result = {"status": "finished", "job": "train", "seed": 0, "metrics": {"val/loss": 1.25}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    export_network(loaded_of(path=tmp_path / "checkpoints" / "step-00000007.ckpt"), tmp_path / "hf")
    assert "| val/loss | 1.25 |" in (tmp_path / "hf" / "README.md").read_text()


def test_a_model_is_replaced_only_when_asked_and_other_folders_never(tmp_path):
    out = tmp_path / "out"
    export_network(loaded_of(), out)
    with pytest.raises(ConfigError, match="already holds a model; give another folder, or force=true to replace it"):
        export_network(loaded_of(), out)
    (out / "stale.txt").write_text("old")
    export_network(loaded_of("model.tied=false"), out, force=True)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files; give a new or empty folder"):
        export_network(loaded_of(), other, force=True)
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        export_network(loaded_of(), other / "thesis.txt", force=True)
    assert (other / "thesis.txt").read_text() == "mine"


def test_a_failed_write_leaves_the_old_model(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")

    def fill(folder):
        (folder / "config.json").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(AptlabError, match=r"cannot write .*out: No space left on device; choose another out"):
        replace_folder(out, fill)
    assert (out / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_exported_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="smooth=LeftSpin cannot be exported to format=hf"):
        export_network(loaded_of("smooth=left_spin"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_commands_go_there_and_back(tmp_path, capsys):
    run = saved(tmp_path / "run", "rope=yarn", "size.kv_heads=1", "attention.qk_norm=true", "model.tied=false")
    assert export_command.run([f"ckpt={run}"]) == 0
    written, readers, warning = capsys.readouterr().out.splitlines()
    assert written == f"written {run / 'hf'}: Qwen3ForCausalLM, float32"
    assert readers.startswith("positions (yarn in Qwen 3) are kept by transformers5")
    assert warning == "warning: read as something else, without an error, by keras-hub (without scaling)"
    assert import_command.run([f"path={run / 'hf'}", f"out={tmp_path / 'back'}"]) == 0
    file = tmp_path / "back" / "checkpoints" / "step-00000000.ckpt"
    assert capsys.readouterr().out == f"written {file}: 257 tokens; try aptlab generate ckpt={tmp_path / 'back'}\n"
    before, after = load_network(run), load_network(tmp_path / "back")
    assert after.net.rope == before.net.rope
    assert after.net.shape == before.net.shape
    assert after.tokenizer.state() == BYTES
    assert set(after.net.state_dict()) == set(before.net.state_dict())
    for name, weight in before.net.state_dict().items():
        assert torch.equal(after.net.state_dict()[name], weight)
    tokens = make_random_tokens(1, 64, vocab=257)
    assert torch.equal(after.net(tokens).logits, before.net(tokens).logits)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "checkpoints",
        "choices.yaml",
        "config.yaml",
        "overrides.yaml",
    ]
    with pytest.raises(ConfigError, match=r"step-00000000\.ckpt is already there; give another out, or force=true"):
        import_command.run([f"path={run / 'hf'}", f"out={tmp_path / 'back'}"])
    assert import_command.run([f"path={run / 'hf'}", f"out={tmp_path / 'back'}", "force=true"]) == 0


def test_the_overrides_of_an_import_compose_to_its_configuration(tmp_path):
    export_network(loaded_of("rope=llama3", "rope.original_len=32", "norm.eps=1e-6"), tmp_path / "out")
    state = convert_hf_folder(tmp_path / "out")
    meta = state["aptlab"]
    again = compose("train", meta["overrides"])
    assert again.resolved() == meta["config"]
    assert meta["config"]["norm"]["eps"] == 1e-6
    assert meta["config"]["rope"]["original_len"] == 32
    assert meta["choices"]["rope"] == "llama3"


def test_a_trained_tokenizer_goes_there_and_back(tmp_path):
    from aptlab.data.tokenizers import BPE, JsonTokenizer

    tokenizer = JsonTokenizer(BPE(vocab=300).train(iter(["words and more words " * 20])), "here")
    loaded = loaded_of(tokenizer=tokenizer.state(), vocab=tokenizer.vocab_size)
    export_network(loaded, tmp_path / "out")
    state = convert_hf_folder(tmp_path / "out")
    assert state["aptlab"]["tokenizer"] == tokenizer.state()
    assert state["aptlab"]["choices"]["tokenizer"] == "file"
    small = replace(loaded, meta={**loaded.meta, "tokenizer": BYTES})
    export_network(small, tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["eos_token_id"] == 256


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path):
    export_network(loaded_of(), tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json is missing; aptlab reads fast tokenizers only, write one"):
        convert_hf_folder(tmp_path / "out")


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    from aptlab.data.tokenizers import BPE

    export_network(loaded_of(), tmp_path / "out")
    text = BPE(vocab=300).train(iter(["words and more words " * 20]))
    (tmp_path / "out" / "tokenizer.json").write_text(text)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    with pytest.raises(ConfigError, match=r"tokens and config\.json has vocab_size=257; they belong to different"):
        convert_hf_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"export needs a checkpoint; add ckpt=last, ckpt=<run folder> or ckpt=<file>\.ckpt"),
        (["ckpt=x", "format=gguf"], "format: no such value 'gguf'; allowed: hf, onnx"),
        (["ckpt=x", "dtype=float23"], r"dtype: no such value .float23.; did you mean float32\?"),
        (["ckpt=nowhere"], "nowhere: no such file or folder"),
        (["kcpt=x"], r"kcpt: unknown top-level key; did you mean ckpt\?"),
    ],
)
def test_export_requests_that_make_no_sense_are_refused(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AptlabError, match=message):
        export_command.run(args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "import needs path=…, the folder of a model"),
        (["path=x"], r"import needs out=…, a folder, or a file that ends in \.ckpt"),
        (["path=x", "out=y"], r"config\.json: no such file"),
    ],
)
def test_import_requests_that_make_no_sense_are_refused(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AptlabError, match=message):
        import_command.run(args)
    assert list(tmp_path.iterdir()) == []


def test_transformers_loads_and_generates_from_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    loaded = loaded_of("rope=yarn")
    export_network(loaded, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("some text", return_tensors="pt").input_ids
    with torch.no_grad():
        assert (model(ids).logits - loaded.net(ids).logits).abs().max().item() <= 1e-5
        out = model.generate(ids, max_new_tokens=5, do_sample=False)
        tokens = ids
        for _ in range(5):
            tokens = torch.cat((tokens, loaded.net(tokens).logits[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(out, tokens[:, : out.shape[1]])
    assert out.shape[1] == ids.shape[1] + 5
