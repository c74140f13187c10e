"""`import aptlab`: the five functions, on a real checkpoint of a tiny random model."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import aptlab
from aptlab.cli import main
from aptlab.config import compose
from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.evals.context import make_eval_folder
from aptlab.nn.positions.rope import YaRN
from tests.commands.small_run import words
from tests.commands.trained import CONTEXT, make_run, write_texts

SMALL = {"tokens": 256, "multiples": [1, 2]}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))


@pytest.fixture
def model(ckpt) -> aptlab.LoadedModel:
    return aptlab.load(ckpt, device="cpu")


def test_the_public_names_are_listed_and_load_no_torch():
    code = "import sys, aptlab; [getattr(aptlab, name) for name in aptlab.__all__]; "
    code += "assert set(aptlab.__all__) <= set(dir(aptlab)); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_public_name_is_a_module_that_would_replace_it():
    assert [name for name in aptlab.__all__ if importlib.util.find_spec(f"aptlab.{name}")] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'aptlab' has no attribute 'trian'"):
        aptlab.trian  # noqa: B018


@pytest.mark.parametrize("name", ["build", "evaluate", "generate", "load", "train"])
def test_a_function_explains_its_arguments_results_errors_and_use(name):
    text = inspect.getdoc(getattr(aptlab, name))
    assert [part for part in ("Args:", "Returns:", "Raises:", "Example:") if f"\n{part}\n" not in text] == []


def test_a_loaded_model_has_network_tokenizer_and_configuration(ckpt, model):
    assert (model.path, model.step, model.context) == (ckpt, 7, CONTEXT)
    assert model.device == torch.device("cpu")
    assert not model.net.training
    assert model.tokenizer.decode(model.tokenizer.encode("für")) == "für"
    assert model.config["size"]["dim"] == model.net.shape.dim
    root = ckpt.parents[4]
    assert aptlab.load(root=root, device="cpu").path == ckpt
    assert aptlab.load(ckpt.parents[1], device=torch.device("cpu")).path == ckpt


def test_a_place_without_a_checkpoint_and_a_device_that_is_none_are_told(ckpt):
    with pytest.raises(CheckpointError, match="outputs: no such file or folder"):
        aptlab.load("last")
    with pytest.raises(ConfigError, match=r"device=cdua: no such device; use auto, cpu, cuda or cuda:<number>"):
        aptlab.load(ckpt, device="cdua")
    with pytest.raises(ConfigError, match=r"device=cuda:99 wants 100 CUDA devices and \d+ are here; use device=cpu"):
        aptlab.load(ckpt, device="cuda:99")


def test_generated_texts_are_those_of_the_command(ckpt, model, tmp_path, capsys):
    args = [f"ckpt='{ckpt}'", "device=cpu", "prompt=abc", "samples=2", "seed=3", "max_new_tokens=8", "top_k=5"]
    assert main(["generate", *args, "out=a.jsonl"]) == 0
    capsys.readouterr()
    texts = aptlab.generate(model, "abc", samples=2, seed=3, max_new_tokens=8, top_k=5)
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [vars(text) for text in texts] == rows
    assert capsys.readouterr().out == ""
    assert texts == aptlab.generate(ckpt, ["abc"], samples=2, seed=3, max_new_tokens=8, top_k=5, device="cpu")


def test_generate_without_a_word_has_the_defaults_of_the_command():
    values = compose("generate", []).resolved()
    defaults = {name: p.default for name, p in inspect.signature(aptlab.generate).parameters.items()}
    for name in ("max_new_tokens", "seed", "samples", "batch", "width", "draft", "draft_tokens"):
        assert defaults[name] == values[name]
    from aptlab.sample import SamplingRules, make_sampling_rules

    rules = make_sampling_rules({})
    assert {name: values[name] for name in SamplingRules.__dataclass_fields__} == vars(rules)


def test_a_text_beyond_the_trained_context_is_warned_of(model, caplog):
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        model.generate("x" * 20, max_new_tokens=2)
    assert "20 prompt tokens + 2 new ones are more than the trained context=16" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples=0 must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be 1 or more"),
        ({"batch": -1}, "batch=-1 must be 1 or more"),
        ({"stop": "ab"}, r"stop='ab': give a list of strings"),
        ({"stop": [""]}, r"stop=\[''\]: give a list of strings, none of them empty"),
        ({"temprature": 1}, r"temprature=1: there is no such sampling option; did you mean temperature\?"),
        ({"top_p": 1.5}, r"top_p must be in \[0, 1\], got 1\.5"),
        ({"device": "cpu"}, r"device=cpu: the model is loaded already, on cpu; leave it out, or load the model there"),
    ],
)
def test_what_generate_cannot_do_is_told_with_the_way_out(model, options, message):
    with pytest.raises(ConfigError, match=message):
        aptlab.generate(model, "abc", **options)


def test_an_evaluation_is_that_of_the_command_and_leaves_its_folder(ckpt, capsys):
    result = aptlab.evaluate(ckpt, "lengths", "device=cpu", out="a b", **SMALL)
    assert result.folder == Path("a b")
    assert [row["multiple"] for row in result.values["lengths"]] == [1, 2]
    assert "loss by length" in capsys.readouterr().out
    args = [f"ckpt='{ckpt}'", "device=cpu", "eval.tokens=256", "eval.multiples=[1,2]", "out=c"]
    assert main(["eval", *args]) == 0
    assert json.loads(Path("c/eval.json").read_text())["lengths"] == result.values["lengths"]


def test_overrides_and_keywords_choose_rule_and_values(ckpt):
    other = ["rope=yarn", "rope.factor=4"]
    result = aptlab.evaluate(ckpt, "sliding", other, "device=cpu", tokens=64, stride=8, lengths=(CONTEXT,))
    assert result.folder.parent == ckpt.parents[1] / "evals"
    assert result.values["rope"]["factor"] == 4
    assert [row["length"] for row in result.values["lengths"]] == [CONTEXT]


def test_a_model_in_memory_is_measured_as_it_is_and_left_so(ckpt, model):
    stored = aptlab.evaluate(model, out="a", **SMALL).values["lengths"]
    assert stored == aptlab.evaluate(ckpt, "lengths", "device=cpu", out="b", **SMALL).values["lengths"]
    with torch.no_grad():
        model.net.embed.weight.zero_()
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    result = aptlab.evaluate(model, "lengths", "precision=bf16-true", out="c", **SMALL)
    assert result.values["weights"] == "in memory"
    row, _ = result.values["lengths"]
    assert row["loss"] == pytest.approx(math.log(model.net.vocab), abs=1e-2)  # no embedding, no knowledge
    after = model.net.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_evaluations_within_a_second_have_a_folder_each(ckpt, model):
    before = aptlab.evaluate(model, "sliding", tokens=64, stride=8, lengths=[CONTEXT])
    with torch.no_grad():
        model.net.embed.weight.zero_()
    after = aptlab.evaluate(model, "sliding", tokens=64, stride=8, lengths=[CONTEXT])
    assert after.values["lengths"][0]["loss"] == pytest.approx(math.log(model.net.vocab), abs=1e-4)
    assert before.values["lengths"][0]["loss"] != after.values["lengths"][0]["loss"]
    folders = {make_eval_folder(None, ckpt) for _ in range(5)}
    assert len(folders) == 5


def test_what_evaluate_cannot_do_is_told_with_the_way_out(ckpt, model):
    with pytest.raises(ConfigError, match=r"device: the model is loaded already, from .* on cpu; leave it out"):
        aptlab.evaluate(model, "lengths", "device=cpu")
    with pytest.raises(ConfigError, match=r"width: the model is loaded already, from .*; leave it out"):
        aptlab.evaluate(model, "lengths", "width=0.5")
    with pytest.raises(ConfigError, match="out: give the folder as a keyword"):
        aptlab.evaluate(model, "lengths", "out=x")
    Path("full").mkdir()
    Path("full/eval.json").write_text("{}")
    with pytest.raises(ConfigError, match="out=full holds results already, and a model in memory may differ"):
        aptlab.evaluate(model, out="full")
    with pytest.raises(ConfigError, match=r"eval=lenghts: no such option; did you mean lengths\?"):
        aptlab.evaluate(ckpt, "lenghts")
    with pytest.raises(ConfigError, match=r"tokns: .* did you mean tokens\?"):
        aptlab.evaluate(ckpt, "lengths", tokns=5)
    with pytest.raises(ConfigError, match=r"<object .*> is no plain value; give a number, a string"):
        aptlab.evaluate(ckpt, "lengths", tokens=object())


def read_process_state():
    loggers = [
        logging.getLogger(),
        *(logging.getLogger(name) for name in ("aptlab", "py.warnings", "lightning.pytorch")),
    ]
    return (
        list(sys.argv),
        dict(os.environ),
        {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)},
        [(log.level, list(log.handlers), list(log.filters), log.propagate) for log in loggers],
        (list(warnings.filters), warnings.showwarning),
    )


def test_training_gives_a_run_and_leaves_the_process_as_it_was():
    import lightning.pytorch  # sets up its own loggers  # noqa: F401

    before = read_process_state()
    run = aptlab.train(words(), "seed=1")
    assert read_process_state() == before
    assert run.result.steps == 2
    assert run.result.seed == 1
    assert (run.path / "figure.png").is_file()
    assert aptlab.load(run.path, device="cpu").step == 2
    with pytest.raises(AptlabError, match="is a file, not a folder"):
        aptlab.train(words(), "run_dir=texts.jsonl")
    assert read_process_state() == before


def test_what_train_is_not_given_as_text_is_told():
    with pytest.raises(ConfigError, match=r"-m: there are no flags here, only overrides such as 'rope\.factor=8'"):
        aptlab.train("-m", "rope=standard,yarn")
    with pytest.raises(ConfigError, match=r"8 is no override; give strings, as in 'rope\.factor=8'"):
        aptlab.train(["seed=1", 8])
    with pytest.raises(ConfigError, match=r"rope=yran: no such option; did you mean yarn\?"):
        aptlab.train("rope=yran")


def test_any_part_of_the_configuration_is_built():
    assert aptlab.build("rope=yarn", "rope.factor=8", "rope.original_len=64", node="rope") == YaRN(
        factor=8, original_len=64
    )
    norm = aptlab.build(node="norm")(16)
    assert isinstance(norm, torch.nn.Module)
    guard = aptlab.build(node="callbacks.guard")
    assert type(guard).__name__ == "NonFiniteGuard"


def test_the_network_is_the_one_that_training_begins_with():
    state = torch.get_rng_state()
    net = aptlab.build(["size=debug", "seed=5"])
    assert torch.equal(torch.get_rng_state(), state)
    assert net.vocab == 257
    torch.manual_seed(5)
    inside = aptlab.build("size=debug", "seed=5", node="task").net.state_dict()
    assert all(torch.equal(value, inside[name]) for name, value in net.state_dict().items())
    other = aptlab.build("size=debug", "seed=6").state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in net.state_dict().items())
    assert aptlab.build("size=debug", "vocab=300", "tokenizer=bpe").vocab == 300


@pytest.mark.parametrize(
    ("overrides", "node", "message"),
    [
        (["rope.factr=2"], "rope", r"rope\.factr: .*Standard has no such parameter"),
        ([], "ropes", r"node=ropes: there is no ropes; did you mean rope\?"),
        ([], "callbacks.gard", r"node=callbacks\.gard: there is no callbacks\.gard; did you mean guard\?"),
        (["ckpt=null"], "ckpt", r"node=ckpt: it is null, so there is nothing to build"),
        ([], "seed", r"node=seed is the value 0, which is there already"),
        (
            ["tokenizer=bpe"],
            "model",
            r"vocab=null: this tokenizer has to be trained first, .* give its size, as in vocab=",
        ),
    ],
)
def test_what_cannot_be_built_is_told_with_the_way_out(overrides, node, message):
    with pytest.raises(ConfigError, match=message):
        aptlab.build(*overrides, node=node)


@pytest.mark.parametrize("prompts", [3, None, ["a", 3], b"ab"])
def test_prompts_that_are_no_texts_are_refused(model, prompts):
    with pytest.raises(ConfigError, match=r"prompts=.*: give a text, or a list of texts"):
        aptlab.generate(model, prompts)
