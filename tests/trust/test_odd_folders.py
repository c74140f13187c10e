"""A Hugging Face folder that is merely odd is imported, or told of in one line with its file and key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aptlab.data.tokenizers import JsonTokenizer, read_folder_files
from aptlab.errors import AptlabError, CheckpointError, ConfigError, DataError
from aptlab.models.hf import FAMILIES, build_tokenizer_files, convert_to_hf, describe_decoder, read_folder
from aptlab.models.hf import read as reading
from aptlab.restore.hf_import import convert_tokenizer, derive_overrides
from aptlab.restore.hf_lengths import read_folder_lengths
from aptlab.testing import make_tiny_decoder

ODD = (None, "", "text", -1, 0, 1e300, [], {}, True, 10**30, float("nan"))
ROPES = (
    {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 4.0},
    {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 16},
)


def make_folder(path: Path) -> Path:
    """A whole folder of the smallest decoder, with the byte tokenizer and every file that is read."""
    net = make_tiny_decoder(vocab=257)
    described = describe_decoder(net, context=16, eos=256)
    path.mkdir(parents=True)
    save_file(convert_to_hf(net, described.family), path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(described.config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [256], "temperature": 0.7, "top_k": 5}))
    for name, text in build_tokenizer_files({"kind": "bytes"}, longest=64).items():
        (path / name).write_text(text, encoding="utf-8")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))  # as others write it: our own files say no more
    change(path / "tokenizer_config.json", "added_tokens_decoder", {"256": {"content": "<eos>", "special": True}})
    change(path / "tokenizer_config.json", "add_bos_token", False)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("odd") / "whole")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "folder"))


def change(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def read_all(folder: Path) -> None:
    """Everything that `aptlab import` reads of a folder, but for the network."""
    source = read_folder(folder)
    convert_tokenizer(source, folder)
    derive_overrides(source)
    read_folder_lengths(folder, longest=source.longest, rope={})


def tell(act) -> str | None:
    """The one line of an error that a user can cause, None where there is none; anything else fails the test."""
    said = None
    try:
        act()
    except AptlabError as error:
        said = str(error)
    assert said is None or ("\n" not in said and "Error:" not in said and len(said) < 1000), said
    return said


def odd_ways(values: dict, key: str):
    yield {name: value for name, value in values.items() if name != key}
    for odd in ODD:
        yield values | {key: odd}


@pytest.fixture
def config_only(monkeypatch):
    """Weights are read once: a walk over configurations judges them alone."""
    monkeypatch.setattr(reading, "read_weights", lambda folder, places: ({}, "model.safetensors"))
    monkeypatch.setattr(reading, "read_places", lambda folder: {})


def walk_config(folder: Path, config: dict, keys) -> int:
    path, seen = folder / "config.json", 0
    for key in keys:
        for values in odd_ways(config, key):
            path.write_text(json.dumps(values))
            said = tell(lambda: derive_overrides(read_folder(folder)))
            assert said is None or "config.json" in said, (key, values.get(key), said)
            kind_is_wrong = isinstance(values.get(key), str | list | dict) and isinstance(config.get(key), int | float)
            if kind_is_wrong and key in ("hidden_size", "num_hidden_layers", "rms_norm_eps"):
                assert said is not None, (key, values[key])
                assert key in said
            seen += 1
    return seen


def test_every_key_of_a_config_with_every_odd_value(folder, config_only):
    config = json.loads((folder / "config.json").read_text())
    assert walk_config(folder, config, [*config]) > 200


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
def test_every_key_of_a_rope_with_every_odd_value(folder, config_only, rope):
    config, path = json.loads((folder / "config.json").read_text()), folder / "config.json"
    for form in ("rope_parameters", "rope_scaling"):
        for key in rope:
            for values in odd_ways(rope, key):
                path.write_text(json.dumps({**config, "rope_parameters": None, "rope_scaling": None, form: values}))
                said = tell(lambda: derive_overrides(read_folder(folder)))
                assert said is None or "config.json" in said, (key, values.get(key), said)


EXPERTS = {"gpt_oss": {"num_local_experts": 1}, "granitemoehybrid": {"num_local_experts": 0}}  # as few as can be read


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_key_of_every_family_with_every_odd_value(folder, config_only, monkeypatch, name):
    """The keys that this layout reads and a plain decoder does not write."""
    monkeypatch.setattr(reading, "check_stored", lambda *given: None)
    family = FAMILIES[name]
    more = (
        "sliding_window",
        "layer_types",
        "no_rope_layers",
        "max_window_layers",
        "sliding_window_pattern",
        "head_dim",
    )
    more += ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "use_sliding_window", "moe_layers")
    more += ("attention_chunk_size", "no_rope_layer_interval", "use_bidirectional_attention", "text_config")
    more += ("num_local_experts", "attention_dropout", "quantization_config", "position_embedding_type", "rope_scaling")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": name, "moe_layers": []}
    own = family.rename_keys(dict(family.defaults))
    if family.two_ropes:
        del config["rope_parameters"]
    full = family.rename_keys(config) | own | EXPERTS.get(name, {})
    assert walk_config(folder, full, [*own, *more]) > 200


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "config.json"])
def test_every_key_beside_a_tokenizer_with_every_odd_value(folder, name):
    path, text = folder / name, (folder / "tokenizer.json").read_text()
    values = json.loads(path.read_text())
    ids = ["bos_token_id", "eos_token_id", "pad_token_id"]
    for key in ids if name == "config.json" else [*values, "bos_token", "chat_template", "add_eos_token", *ids]:
        for odd in odd_ways(values, key):
            path.write_text(json.dumps(odd))

            def read(folder=folder, text=text):
                tokenizer = JsonTokenizer(text, "tokenizer.json", files=read_folder_files(folder / "tokenizer.json"))
                assert tokenizer.decode(tokenizer.encode("ab")) == "ab"
                assert isinstance(tokenizer.notes, list)
                read_folder_lengths(folder, longest=16, rope={})

            said = tell(read)
            assert said is None or (name in said and key in said), (key, odd.get(key), said)


ENTRY = {"content": "<eos>", "special": True, "lstrip": False}


@pytest.mark.parametrize("key", ENTRY)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_every_key_of_an_added_token_with_every_odd_value(folder, key, odd):
    change(folder / "tokenizer_config.json", "added_tokens_decoder", {"256": ENTRY | {key: odd}})
    text = (folder / "tokenizer.json").read_text()
    said = tell(lambda: JsonTokenizer(text, "x", files=read_folder_files(folder / "tokenizer.json")).encode("ab"))
    assert said is None or "added_tokens_decoder.256" in said, said


@pytest.mark.parametrize("number", ["-1", "x", "²", "", "9" * 40, "4294967296"])
def test_an_added_token_without_an_id_is_told(folder, number):
    change(folder / "tokenizer_config.json", "added_tokens_decoder", {number: ENTRY})
    with pytest.raises(DataError, match=r"added_tokens_decoder\..* in tokenizer_config\.json is not named by the id"):
        read_all(folder)


PLACES = {"model.embed_tokens.weight": "model-00001-of-00001.safetensors"}
BAD_INDEX = {
    "no map": ({"metadata": {}}, "weight_map must be a table"),
    "a list": ({"weight_map": ["a"]}, "weight_map must be a table of the file of each weight, there is list"),
    "null": ({"weight_map": None}, "weight_map must be a table"),
    "empty": ({"weight_map": {}}, "weight_map must be a table"),
    "a text": ({"weight_map": "a"}, "weight_map must be a table"),
    "no object": ([1], "weight_map must be a table of the file of each weight, there is nothing"),
    "a number": ({"weight_map": {"a.weight": 3}}, r"weight_map\.a\.weight is 3, which is no name of a file beside"),
    "absolute": ({"weight_map": {"a": "/etc/hostname"}}, r"weight_map\.a is '/etc/hostname', which is no name"),
    "upwards": ({"weight_map": {"a": "../model.safetensors"}}, r"weight_map\.a is '\.\./model.*no name of a file"),
    "the folder above": ({"weight_map": {"a": ".."}}, r"weight_map\.a is '\.\.', which is no name"),
    "missing": ({"weight_map": PLACES}, r"model-00001-of-00001\.safetensors is missing"),
    "elsewhere": ({"weight_map": {"a": "model.safetensors"}}, r"lacks a, which model\.safetensors\.index\.json places"),
}


@pytest.mark.parametrize(("index", "message"), BAD_INDEX.values(), ids=BAD_INDEX)
def test_an_odd_index_is_told(folder, index, message):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        read_folder(folder)


def test_a_shard_outside_of_the_folder_is_never_opened(folder, tmp_path):
    """The same name beside the folder holds other weights, which once were taken by the last part of the path."""
    save_file({"model.embed_tokens.weight": torch.ones(1)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"weight_map\.a is '\.\./outside\.safetensors'"):
        read_folder(folder)


FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"3", b'{"a": 1', None], ids=repr)
def test_a_file_that_is_none_is_told_by_name(folder, name, content):
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    said = tell(lambda: read_all(folder))
    beside = ("tokenizer_config.json", "generation_config.json")
    assert said is None if content is None and name in beside else name in str(said), said


@pytest.mark.parametrize("eos", ["<'>", '<">', "<\\>", "<'\\'>", "a,b=c", "{x: [1"])
def test_an_end_token_of_any_characters_is_imported(folder, eos):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"<eos>"', json.dumps(eos)))
    change(folder / "tokenizer_config.json", "eos_token", eos)
    change(folder / "tokenizer_config.json", "added_tokens_decoder", {"256": {"content": eos, "special": True}})
    from aptlab.config import compose

    _, words = convert_tokenizer(read_folder(folder), folder)
    config = compose("train", words)
    assert config.cfg.tokenizer.eos == eos
    assert config.cfg.tokenizer.path == str(path.resolve())


def test_the_whole_folder_is_read(folder):
    assert tell(lambda: read_all(folder)) is None


def test_a_string_where_a_number_belongs_names_file_and_key(folder):
    change(folder / "config.json", "hidden_size", "64")
    with pytest.raises(
        ConfigError, match=r"^hidden_size='64' in config\.json is not a whole number of 1 or more; repair"
    ):
        read_folder(folder)
