"""`aptlab export for=…`: what is written for one program, and what is refused."""

import json

import pytest

from aptlab.commands import export as export_command
from aptlab.commands.export import ExportRequest
from aptlab.config import compose, fill_request, list_parameter_values, read_root_keys
from aptlab.errors import AptlabError, ConfigError
from aptlab.models.hf.readers import READERS
from tests.commands.test_export import saved

LLAMA3 = ("rope=llama3", "rope.original_len=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), *LLAMA3)


def exported(run, capsys, *args):
    assert export_command.run([f"ckpt={run}", "force=true", *args]) == 0
    return json.loads((run / "hf" / "config.json").read_text()), capsys.readouterr().out


def test_the_words_of_the_option_are_the_readers_that_have_a_form():
    allowed = list_parameter_values(read_root_keys("export")["for"])
    assert set(allowed) - {"null", "onnx"} == {reader.name for reader in READERS if reader.form is not None}


def test_the_unasked_folder_says_who_drops_its_rule(run, capsys):
    config, said = exported(run, capsys)
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert "positions (llama3) are kept by transformers5" in said
    assert "without an error, by ctranslate2 (without scaling)" in said


def test_the_form_of_a_reader_is_written(run, capsys):
    config, said = exported(run, capsys, "for=transformers5")
    assert "rope_scaling" not in config
    assert "rope_theta" not in config
    assert "written for transformers 5.24.0" in said
    config, _ = exported(run, capsys, "for=transformers4")
    assert "rope_parameters" not in config
    assert config["rope_scaling"]["type"] == "llama3"


def test_a_reader_gets_the_special_tokens_that_it_needs(tmp_path):
    run = saved(tmp_path, "rope=linear", "rope.original_len=32")
    assert export_command.run([f"ckpt={run}", "for=ctranslate2"]) == 0
    settings = json.loads((run / "hf" / "tokenizer_config.json").read_text())
    assert settings["bos_token"] == settings["unk_token"] == settings["eos_token"] == "<eos>"


def test_a_reader_that_would_drop_the_rule_is_refused(run):
    with pytest.raises(ConfigError, match=r"for=ctranslate2 cannot be written.*would not keep llama3: without scaling"):
        export_command.run([f"ckpt={run}", "for=ctranslate2", f"out={run / 'no'}"])
    assert not (run / "no").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["for=mlk"], r"for: no such value 'mlk'; did you mean mlx\?"),
        (["for=mlx", "format=onnx"], r"for=mlx reads folders of format=hf; leave one of format and for out"),
    ],
)
def test_readers_that_make_no_sense_are_refused(args, message, run):
    with pytest.raises(AptlabError, match=message):
        export_command.run([f"ckpt={run}", *args])


def test_a_key_that_is_a_word_of_python_fills_its_field():
    request = fill_request(ExportRequest, compose("export", ["ckpt=x", "for=onnx"]))
    assert (request.for_, request.kind) == ("onnx", "onnx")
