"""Sizes, depth and number of values are checked before anything is made of a file: one line each, and no hang."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aptlab.bounded import OPTION, PLAIN, Bounds, check_json_nesting, needs_events, parse_json, parse_yaml
from aptlab.checkpoint import load_checkpoint, save_checkpoint
from aptlab.checkpoint.manifest import Manifest
from aptlab.commands import ls as ls_command
from aptlab.config import compose, search_path
from aptlab.config.files import read_config_file
from aptlab.config.growth import check_growth
from aptlab.config.search_path import find_conf_dir, read_option_index
from aptlab.data.tokenizers import JsonTokenizer
from aptlab.data.tokenizers import json as tokenizer_json
from aptlab.errors import AptlabError, CheckpointError, ConfigError, DataError
from aptlab.models.hf import build_bytes_tokenizer, read_folder
from aptlab.models.hf.headers import read_header
from aptlab.restore.load import load_network, restore_network
from aptlab.runs import Run
from aptlab.runs.find import find_runs
from aptlab.runs.journal import Journal
from tests.commands.trained import make_run, write_texts
from tests.trust.test_odd_folders import change, make_folder

SMALL = Bounds(bytes=10_000, depth=5, values=100)
DEEP = "[" * 70 + "]" * 70  # deeper than any file of ours, and harmless to every reader
LADDER = "a: &a [1, 2]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c, *c]\n"  # 24 numbers behind five


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 6 + "]" * 6, "deeper than 5 levels"),
        ('{"a":' * 6 + "1" + "}" * 6, "deeper than 5 levels"),
        ("[" * 90, "deeper than 5 levels"),
        ("[" + "1," * 100 + "1]", "more than 100 values"),
        ('"' + "a" * 10_001 + '"', "10,003 bytes, at most 10,000"),
        ("]" * 8, "Expecting value"),
        ('{"a": [1, 2', "Expecting"),
        ('"' + '\\"' * 200 + "[" * 7, "Unterminated string"),
    ],
    ids=["list", "object", "open", "values", "bytes", "closed", "cut", "text"],
)
def test_json_beyond_the_bounds_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text, SMALL)


def test_json_within_the_bounds_is_read():
    for value in ([[[[[1]]]]], {"text": '[[[[[[{{{{{{ \\" ]'}, [[]] * 20, [{"a": {}}] * 10, "]", 3):
        assert parse_json(json.dumps(value), SMALL) == value
        assert parse_json(json.dumps(value).encode(), SMALL) == value


def test_a_journal_of_many_lines_is_not_scanned_twice(monkeypatch):
    monkeypatch.setattr("aptlab.bounded._STRING", None)
    check_json_nesting('{"a": [1, {"b": 2}], "c": "text"}', PLAIN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- " * 6 + "1", "deeper than 5 levels"),
        ("\n".join(" " * i + "a:" for i in range(7)), "deeper than 5 levels"),
        ("{a: " * 6 + "1" + "}" * 6, "deeper than 5 levels"),
        ("a: &x [[1]]\nb: [[[*x]]]", "deeper than 5 levels"),
        (LADDER.replace("d: [", "d: [*c, *c, *c, *c, *c, *c, *c, "), "more than 100 values"),
        ("a: &a [*a]", "the node &a holds itself"),
        ("a: !!int ''", "its tag does not allow"),
        ("a: !!timestamp x", "its tag does not allow"),
        ("a: 2001-13-45", "month must be in"),
    ],
)
def test_yaml_beyond_the_bounds_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text, bounds=SMALL)


def test_yaml_within_the_bounds_is_read():
    assert parse_yaml(LADDER, bounds=SMALL)["d"] == [[[[1, 2], [1, 2]], [[1, 2], [1, 2]]]] * 3
    assert parse_yaml("- " * 5 + "1", bounds=SMALL) == [[[[[1]]]]]


def test_our_own_option_files_are_read_in_one_pass():
    texts = [path.read_text() for path in find_conf_dir().rglob("*.yaml")]
    assert sum(needs_events(text, OPTION) for text in texts) < len(texts) // 5


def write_run(folder: Path, **files: str) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("{}")
    (folder / "result.json").write_text('{"job": "train", "seed": 0}')
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "choices.yaml", "environment.json", "result.json"])
def test_a_deep_file_of_a_run_folder_is_told_by_name_and_the_others_are_compared(tmp_path, caplog, name):
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad", **{name.replace(".", "__"): DEEP})
    with pytest.raises(AptlabError, match=rf"{name} cannot be read: .*nested deeper than 64 levels"):
        Run.read(bad)
    assert [run.name for run in find_runs([tmp_path])] == ["good"]
    assert f"{name} cannot be read" in caplog.text


def test_aliases_of_aliases_in_a_run_folder_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("aptlab.runs.record.parse_yaml", lambda text: parse_yaml(text, bounds=Bounds(10_000, 10, 20)))
    (tmp_path / "config.yaml").write_text(LADDER)
    with pytest.raises(AptlabError, match=r"config\.yaml cannot be read: it stands for more than 20 values"):
        Run.read(tmp_path)


def test_a_deep_line_of_a_journal_is_a_damaged_line(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"request": {}}\n{"a": ' + DEEP + "}\n")
    with pytest.raises(AptlabError, match=r"journal\.jsonl, line 2 is damaged"):
        Journal(tmp_path / "journal.jsonl", {})


def test_a_deep_manifest_is_damaged():
    with pytest.raises(CheckpointError, match=r"damaged \(not a manifest: it is nested deeper than 64"):
        Manifest.parse('{"check": "", "config": ' + DEEP + "}")


OPTION_FILES = {
    "deep": ("a: " + "[" * 40 + "]" * 40, r"mine\.yaml cannot be read: it is nested deeper than 32 levels"),
    "itself": ("a: &a [*a]", r"mine\.yaml cannot be read: the node &a holds itself"),
    "large": ("# " + "x" * OPTION.bytes, r"mine\.yaml cannot be read: it has .* bytes, at most 1,048,576"),
    "tag": ("a: !!int ''", r"mine\.yaml cannot be read: a value that its tag does not allow"),
    "date": ("a: 2001-13-45", r"mine\.yaml cannot be read: month must be in"),
}


@pytest.mark.parametrize(("text", "message"), OPTION_FILES.values(), ids=OPTION_FILES)
def test_an_option_file_beyond_the_bounds_is_told_by_name(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("conf/rope").mkdir(parents=True)
    Path("conf/rope/mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config_file(read_option_index().option("rope", "mine").path)


def test_an_option_with_too_many_aliases_never_reaches_the_composition(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aptlab.config.files.OPTION", Bounds(bytes=1 << 20, depth=32, values=40))
    monkeypatch.setattr("aptlab.bounded.Bounds.check_size", lambda self, size: None)
    Path("conf/rope").mkdir(parents=True)
    Path("conf/rope/mine.yaml").write_text(LADDER.replace("d: [", "d: [*c, *c, *c, "))
    with pytest.raises(ConfigError, match=r"stands for more than 40 values"):
        compose("train", ["rope=mine"])


@pytest.mark.parametrize(("bound", "most"), [("MOST_FILES", 3), ("MOST_FOLDERS", 2), ("DEEPEST", 1)])
def test_ls_ends_in_a_tree_that_is_none(tmp_path, monkeypatch, bound, most):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        Path(f"conf/a{number}/b/c").mkdir(parents=True)
        Path(f"conf/a{number}/x.yaml").write_text("a: 1\n")
    monkeypatch.setattr(search_path, bound, most)
    monkeypatch.setattr(search_path, "find_conf_dir", lambda: tmp_path / "conf")
    with pytest.raises(ConfigError, match=r"option files; move them|one folder too many, or too deep"):
        ls_command.run([])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("bounds") / "whole")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "folder"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 1_000_000, r"num_hidden_layers=1000000 in config\.json is not a whole number from 1 to"),
        ("num_hidden_layers", 4000, r"num_hidden_layers=4000 in config\.json, and model\.safetensors holds 3 layers"),
        ("hidden_size", 1 << 30, r"hidden_size=1073741824, .* make a model of .* weights, and model\.saf.* holds"),
        ("intermediate_size", 1 << 40, r"intermediate_size=1099511627776 in config\.json make a model of"),
        ("vocab_size", 1 << 40, r"vocab_size=1099511627776, .* in config\.json make a model of"),
        ("num_attention_heads", 1 << 40, r"num_attention_heads=1099511627776, .* make a model|num_key_value_heads"),
        ("head_dim", 1 << 40, r"in config\.json make a model of"),
    ],
)
def test_a_config_that_is_not_of_its_weights_builds_no_network(folder, monkeypatch, key, value, message):
    monkeypatch.setattr("aptlab.models.hf.read.read_attention", lambda config: pytest.fail("came too far"))
    change(folder / "config.json", key, value)
    with pytest.raises(ConfigError, match=message):
        read_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_deep_files_of_a_model_folder_are_told_by_name(folder, name):
    from tests.trust.test_odd_folders import read_all

    (folder / name).write_text('{"a": ' + DEEP + "}")
    with pytest.raises(AptlabError, match=rf"{name}.*nested deeper than 64 levels"):
        read_all(folder)


def test_a_deep_index_is_told_by_name(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ' + DEEP + "}")
    with pytest.raises(CheckpointError, match=r"index\.json cannot be read as JSON: it is nested deeper"):
        read_folder(folder)


def write_tensors(path: Path, header: object, *, data: bytes = b"\0" * 16, length: int | None = None) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADERS = {
    "longer than the file": ({"a": ENTRY}, {"length": 1 << 40}, "its header would have 1,099,511,627,776 bytes"),
    "outside": ({"a": ENTRY | {"data_offsets": [0, 1 << 40]}}, {}, "a has data_offsets outside of the file"),
    "backwards": ({"a": ENTRY | {"data_offsets": [16, 0]}}, {}, "a has data_offsets outside of the file"),
    "another size": ({"a": ENTRY | {"shape": [1 << 40, 2]}}, {}, "a has another size than its place in the file"),
    "negative": ({"a": ENTRY | {"shape": [-2, -2]}}, {}, "a has no shape"),
    "no shape": ({"a": {"dtype": "F32"}}, {}, "a has no shape"),
    "no entry": ({"a": 3}, {}, "a has no shape"),
    "a list": ([], {}, "its header is no JSON object"),
    "deep": ({"a": [[[[[[[[[[1]]]]]]]]]]}, {}, "nested deeper than 8 levels"),
}


@pytest.mark.parametrize(("header", "how", "message"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_its_file_is_told(tmp_path, header, how, message):
    path = write_tensors(tmp_path / "model.safetensors", header, **how)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors cannot be read: .*{message}.*; download or copy"):
        read_header(path)


def test_a_whole_header_is_read(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors") == {"a": (2, 3), "b": ()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("run")
    return make_run(root, texts=write_texts(root / "texts.jsonl"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth", 1_000_000, r"size\.depth=1000000 in the configuration, and the weights of .* have \d layers"),
        ("dim", 1 << 30, r"the weights in .* do not fit the model of its own configuration"),
        ("hidden", 1 << 40, r"the weights in .* do not fit the model of its own configuration"),
    ],
)
def test_a_checkpoint_whose_config_asks_for_more_builds_no_network(checkpoint, key, value, message):
    state = load_checkpoint(checkpoint)
    state["aptlab"]["config"]["model"]["shape"] |= {key: value, "head_dim": 16}
    with pytest.raises(CheckpointError, match=message):
        restore_network(state, path=Path("given.ckpt"))


def test_training_from_such_a_checkpoint_builds_no_network(checkpoint, tmp_path, monkeypatch):
    import aptlab

    monkeypatch.chdir(tmp_path)
    given = [f"ckpt={checkpoint}", "load=weights", "logger=csv", "device=cpu"]
    with pytest.raises(CheckpointError, match=r"size\.depth=1000000 in the configuration, and the weights of"):
        aptlab.train([*given, "size.depth=1000000"])
    with pytest.raises(CheckpointError, match=r"the model has [\d,]+ parameters, and .* holds"):
        aptlab.train([*given, "size.hidden=1000000000000"])


def test_a_checkpoint_of_its_own_config_is_restored(checkpoint):
    assert load_network(checkpoint).step == 7


class PanicException(BaseException):
    """As the bridge between Rust and Python raises it: no Exception."""


class Broken:
    """A tokenizer of the library whose pattern fails."""

    def __init__(self, whole, where):
        self.whole, self.where = whole, where

    def __getattr__(self, name):
        if name == self.where:
            raise PanicException("called `Result::unwrap()` on an `Err` value")
        return getattr(self.whole, name)


def test_a_pattern_that_fails_while_it_is_compiled_is_one_line(monkeypatch):
    def give_up(text):
        raise PanicException("called `Result::unwrap()`\non an `Err` value")

    monkeypatch.setattr("tokenizers.Tokenizer.from_str", give_up, raising=True)
    with pytest.raises(DataError, match=r"^x is no tokenizer\.json: the library tokenizers gave up[^\n]*version of"):
        JsonTokenizer(build_bytes_tokenizer(), "x")


@pytest.mark.parametrize(("where", "message"), [("encode", "encode a text"), ("decode", "decode its tokens")])
def test_a_pattern_that_fails_on_a_text_is_one_line(where, message):
    tokenizer = JsonTokenizer(build_bytes_tokenizer(), "x")
    tokenizer.__dict__["_plain"] = tokenizer._fast = Broken(tokenizer._fast, where)
    with pytest.raises(DataError, match=rf"^x cannot {message}: the library tokenizers gave up on it"):
        getattr(tokenizer, where)("ab" if where == "encode" else [97])


def test_a_stop_by_the_user_is_no_error_of_a_file():
    with pytest.raises(KeyboardInterrupt), tokenizer_json.name_library_error("x"):
        raise KeyboardInterrupt


def test_the_checkpoint_that_is_tested_can_be_saved_again(checkpoint, tmp_path):
    """The state above is changed in memory; the file on disk is whole."""
    save_checkpoint(load_checkpoint(checkpoint), tmp_path / "again.ckpt")
    assert os.path.getsize(tmp_path / "again.ckpt") > 0


DOUBLED = {"a": "x" * 10, **{chr(98 + n): f"${{{chr(97 + n)}}}${{{chr(97 + n)}}}" for n in range(8)}}
NODES = {"a": {"x": 1, "y": 2}, **{chr(98 + n): {"l": f"${{{chr(97 + n)}}}", "r": "${.l}"} for n in range(8)}}
CHAIN = {f"k{n}": f"${{k{n + 1}}}" for n in range(9)}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (DOUBLED, r"^[a-i]: its interpolations stand for more than (100 values|1,000 characters); write out what"),
        (NODES, r"^[a-i](\.[lr])?: its interpolations stand for more than 100 values; write out what is needed$"),
        (CHAIN, r"^k6: its interpolations follow each other more than 5 times"),
        ({"a": list(range(60)), "b": ["${a}", "${a[0]}", "${oc.select:a,null}"]}, r"^b: .*more than 100 values"),
        ({"a": "x" * 400, "b": "${a} ${a} ${a}"}, r"^b: its interpolations stand for more than 1,000 characters"),
    ],
    ids=["texts", "nodes", "chain", "resolver", "characters"],
)
def test_interpolations_that_grow_beyond_the_bounds_are_named_before_they_are_filled_in(tree, message):
    with pytest.raises(ConfigError, match=message):
        check_growth(tree, Bounds(bytes=1_000, depth=5, values=100))


def test_circles_and_missing_keys_are_left_to_who_resolves_them():
    check_growth({"a": "${b}", "b": "${a}", "c": "${gone.x} ${.d}", "d": {"e": "${d}"}, "f": "\\${a}"}, SMALL)


def test_an_option_of_ones_own_that_doubles_is_refused_in_one_line():
    Path("conf/rope").mkdir(parents=True)
    lines = [f"k{n + 1}: ${{.k{n}}}${{.k{n}}}\n" for n in range(40)]
    Path("conf/rope/bomb.yaml").write_text("# Grow.\n_target_: aptlab.nn.rope.Standard\nk0: xxxx\n" + "".join(lines))
    with pytest.raises(ConfigError, match=r"rope\.k\d+.*its interpolations stand for more than") as caught:
        compose("train", ["rope=bomb"])
    assert "\n" not in str(caught.value)
