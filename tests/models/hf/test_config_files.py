"""config.json files as people publish and edit them: what counts, what is said, and logits as transformers has them."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from aptlab.errors import CheckpointError, ConfigError
from aptlab.models.hf import convert_from_hf, read_attention, read_folder, read_rope_rule
from aptlab.models.hf.defaults import KEYS, describe_defaults, fill_defaults
from aptlab.models.hf.family import FAMILIES
from aptlab.models.hf.rope_given import resolve_rope
from aptlab.nn.positions.rope import Linear, LongRoPE, Standard, YaRN
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.models.hf.making import TOLERANCE, built, export, gap, loaded, saved, transformers
from tests.models.hf.test_from_transformers import LONG, PHI, ROPES, SHORT, YARN, L, made

OLD = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
SIZES = {"model_type": "llama", "num_hidden_layers": 3, "max_position_embeddings": 4 * L}


def edit(folder, drop=(), **changes):
    """Change keys of a folder's config.json."""
    path = folder / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop} | changes
    path.write_text(json.dumps(config))


EDITS = {
    "yarn of a model card on a file of today": ({"rope_scaling": OLD}, "no rope_type|rope_scaling .*rope_type=yarn"),
    "another factor": (
        {"rope_scaling": OLD, "rope_parameters": YARN | {"factor": 2.0}, "rope_theta": 100.0},
        r"rope_scaling \(factor=4\.0\) and rope_parameters \(factor=2\.0\) in config\.json disagree; rope_scaling is",
    ),
    "a theta that is lost": (
        {"rope_scaling": OLD, "rope_parameters": YARN},
        r"rope_scaling \(rope_theta=10000\.0\) and rope_parameters \(rope_theta=100\.0\) in config\.json disagree",
    ),
    "a theta beside": (
        {"rope_parameters": YARN, "rope_theta": 5e5},
        r"rope_parameters\.rope_theta=100\.0 and rope_theta=500000\.0 in config\.json disagree; rope_par",
    ),
    "a trained length beside": (
        {"rope_parameters": YARN, "original_max_position_embeddings": 2 * L, "max_position_embeddings": 8 * L},
        r"original_max_position_embeddings=32 and rope_parameters\.original_max_position_embeddings=16 in .* disagree",
    ),
    "keys of another type": (
        {"rope_parameters": ROPES["linear"] | {"beta_fast": 8.0}},
        r"rope_parameters\.beta_fast=8\.0 in config\.json is not read with rope_type=linear, as in transformers",
    ),
    "a factor without a type": (
        {"rope_parameters": {"factor": 4.0, "rope_theta": 100.0}},
        r"rope_parameters\.factor=4\.0 in config\.json is not read with rope_type=default",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_is_read_as_transformers_reads_it_and_what_loses_is_named(name, tmp_path):
    changes, line = EDITS[name]
    saved(made("LlamaConfig"), tmp_path)
    edit(tmp_path, **changes)
    source, tokens = read_folder(tmp_path), make_random_tokens(2, 4 * L)
    (note,) = [text for text in source.notes if text.startswith("warning: ")]
    assert re.search(line, note), note
    net, model = built(source), loaded(tmp_path)
    assert gap(net, model, tokens[:, :L]) <= TOLERANCE
    assert gap(net, model, tokens) <= TOLERANCE


def test_an_export_says_its_rope_twice_alike_and_an_edit_of_either_is_told(tmp_path):
    export(make_tiny_decoder(rope=YaRN(base=100.0, factor=4.0, original_len=L)), tmp_path)
    assert read_folder(tmp_path).notes == ()
    written = json.loads((tmp_path / "config.json").read_text())
    for key in ("rope_parameters", "rope_scaling"):
        (tmp_path / "config.json").write_text(json.dumps(written | {key: written[key] | {"factor": 2.0}}))
        source = read_folder(tmp_path)
        assert sum("in config.json disagree; rope_scaling is used" in note for note in source.notes) == 1
        assert source.rope.factor == (2.0 if key == "rope_scaling" else 4.0)
    (tmp_path / "config.json").write_text(json.dumps(written | {"rope_theta": 50.0}))
    assert "rope_scaling (rope_theta=50.0) and rope_parameters (rope_theta=100.0)" in read_folder(tmp_path).notes[0]


def test_linear_scaling_stretches_the_length_that_the_file_gives():
    """vicuna-7b-v1.5-16k: 4,096 tokens and factor 4."""
    given = SIZES | {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert read_rope_rule(given) == Linear(factor=4.0, original_len=4096)
    given["rope_scaling"]["original_max_position_embeddings"] = 2048
    assert read_rope_rule(given) == Linear(factor=4.0, original_len=2048)
    gemma = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    assert read_attention(gemma).rope.for_layer(5).rule == Linear(base=1e6, factor=8.0, original_len=16_384)


@pytest.mark.parametrize("kind", ["yarn", "su", "longrope"])
def test_phi_3_reads_its_older_types_as_longrope(kind, tmp_path):
    saved(made("Phi3Config", **PHI), tmp_path)
    older = {"type": kind, "short_factor": SHORT, "long_factor": LONG, "factor": 4.0}
    edit(tmp_path, drop=["rope_parameters"], rope_scaling=older, rope_theta=100.0, original_max_position_embeddings=L)
    source, tokens = read_folder(tmp_path), make_random_tokens(2, 4 * L)
    assert source.rope == LongRoPE(base=100.0, factor=4.0, original_len=L, short=SHORT, long=LONG)
    told = any("rope_type=yarn is read as longrope, as transformers does" in note for note in source.notes)
    assert told == (kind == "yarn")
    if kind == "su":  # transformers 5.24 looks for the trained length under the old name, and fails
        return
    net, model = built(source), loaded(tmp_path)
    assert gap(net, model, tokens[:, :L]) <= TOLERANCE
    assert gap(net, model, tokens) <= TOLERANCE


PHI_SIZES = SIZES | {"model_type": "phi3"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rope_scaling": {"type": "yarn"}}, r"rope_type=yarn without factor in config\.json says not how far it str"),
        ({"rope_scaling": OLD | {"factor": True}}, r"factor=True in config\.json is not a number, and the rope needs"),
        ({"rope_scaling": OLD | {"factor": "4"}}, r"factor='4' in config\.json is not a number, and the rope needs"),
        ({"rope_scaling": OLD | {"beta_fast": "32"}}, r"beta_fast='32' in config\.json is not a number"),
        ({"rope_scaling": OLD | {"truncate": "false"}}, r"truncate='false' in config\.json is neither true nor false"),
        ({"rope_scaling": OLD | {"factor": 0.5}}, r"rope_scaling in config\.json: factor must be a finite number >= 1"),
        (
            {"rope_scaling": OLD | {"original_max_position_embeddings": 4.5}},
            r"original_max_position_embeddings=4\.5 in config\.json is no number of tokens; repair the file",
        ),
        ({"rope_scaling": "linear"}, r"rope_scaling='linear' in config\.json is no object with a rope_type; repair"),
        ({"rope_theta": None}, r"rope_theta=None in config\.json is no number above 1.*without the key it is 10000"),
        (
            {"rope_parameters": {"rope_theta": "1e6"}},
            r"rope_parameters\.rope_theta='1e6' in config\.json is no number above 1.*without the key it is 10000",
        ),
        (
            {"rope_parameters": {"full_attention": YARN}},
            r"rope_parameters\.full_attention in config\.json cannot be imported with model_type=llama: its lay",
        ),
        (
            PHI_SIZES | {"rope_scaling": {"type": "linear", "factor": 4.0}},
            r"rope_scaling\.rope_type=linear cannot be imported with model_type=phi3: transformers has default and",
        ),
        (PHI_SIZES | {"rope_scaling": OLD}, r"short_factor=None in config\.json is not a list of num"),
        (
            {"model_type": "gemma3_text", "rope_scaling": OLD, "rope_parameters": {"sliding_attention": {}}},
            r"rope_scaling beside rope_parameters without full_attention in config\.json cannot be imported",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_that_mean_nothing_are_refused_by_name(given, message):
    with pytest.raises(ConfigError, match=message):
        read_attention(SIZES | given)


def test_a_key_that_the_layout_calls_otherwise_is_not_read_and_named():
    given = {"model_type": "gpt_neox", "num_hidden_layers": 2, "rope_theta": 7.0, "rotary_pct": 1.0}
    parts = read_attention(given)
    assert parts.rope == Standard()
    line = "warning: rope_theta=7.0 in config.json is not read: model_type=gpt_neox calls it rotary_emb_base"
    assert parts.notes == (line,)
    assert read_attention(given | {"rotary_emb_base": 7.0}).notes == ()
    assert read_attention(given | {"rotary_emb_base": 7.0}).rope == Standard(base=7.0)


def test_gpt_oss_has_its_own_rope_where_both_forms_are_null():
    given = {"model_type": "gpt_oss", "num_hidden_layers": 2, "rope_scaling": None, "rope_parameters": None}
    assert read_attention(given).rope == YaRN(base=150_000.0, factor=32.0, original_len=4096, truncate=False)


# what a config.json may leave out

READ = """head_dim tie_word_embeddings rms_norm_eps sliding_window max_window_layers attention_bias use_sliding_window
mlp_bias no_rope_layer_interval attention_chunk_size floor_scale attn_scale use_qk_norm attn_temperature_tuning
query_pre_attn_scalar swiglu_alpha swiglu_limit intermediate_size_mlp original_max_position_embeddings
interleave_moe_layer_step"""
ABSENT = (None, False)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_file_leaves_out_is_what_transformers_takes(name):
    config = transformers().AutoConfig.for_model(name)
    theirs, fields = vars(config), type(config).__dataclass_fields__
    mine = fill_defaults({"model_type": name})
    names = {key: FAMILIES[name].keys.get(key, key) for key in fields}
    for key, ours in names.items():
        if ours not in {*KEYS, *READ.split()} or key in FAMILIES[name].keys.values():
            continue
        expected = fields[key].default
        assert mine.get(ours) == expected or (
            mine.get(ours) in ABSENT and (expected in ABSENT or theirs[key] in ABSENT)
        ), (key, mine.get(ours), expected)
    rope = resolve_rope({"model_type": name}).config["rope_parameters"]
    for kind in ("full_attention", "sliding_attention") if "full_attention" in rope else (None,):
        expected = config.rope_parameters[kind] if kind else config.rope_parameters
        assert (rope[kind] if kind else rope)["rope_theta"] == expected["rope_theta"]


def test_what_a_file_leaves_out_is_said_in_one_line():
    given = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 32}
    given |= {"vocab_size": 61, "intermediate_size": 48, "rms_norm_eps": 1e-6}
    assert describe_defaults(given) == [
        "config.json leaves out num_key_value_heads=32, max_position_embeddings=32768: these are transformers' default "
        "for model_type=qwen2"
    ]
    given |= {"num_key_value_heads": None, "max_position_embeddings": 64}
    assert describe_defaults(given) == []


def test_absent_sizes_are_read_as_transformers_reads_them(tmp_path):
    saved(made("Qwen2Config", num_attention_heads=32, num_key_value_heads=32, hidden_size=128), tmp_path)
    edit(tmp_path, drop=["num_key_value_heads", "max_position_embeddings"])
    source = read_folder(tmp_path)
    assert (source.shape.kv_heads, source.context, source.longest) == (32, 32_768, 32_768)
    assert source.notes[0].startswith("config.json leaves out num_key_value_heads=32, max_position_embeddings=32768")
    assert gap(built(source), loaded(tmp_path), make_random_tokens(2, 2 * L)) <= TOLERANCE
    edit(tmp_path, num_attention_heads=28, head_dim=4)
    with pytest.raises(ConfigError, match=r"leaves out num_key_value_heads, and transformers' 32 .* does not divide"):
        read_folder(tmp_path)


# weights

UP = "model.layers.1.mlp.up_proj.weight"


def test_a_missing_matrix_is_named_with_its_file_and_its_neighbours_are_not(tmp_path):
    saved(made("LlamaConfig"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: weight for name, weight in weights.items() if name != UP}, tmp_path / "model.safetensors")
    source = read_folder(tmp_path)
    net = make_tiny_decoder(shape=source.shape, vocab=61, tied=False)
    with pytest.raises(CheckpointError) as caught:
        convert_from_hf(source, net.state_dict())
    assert str(caught.value).splitlines()[1:] == [f"{UP} is missing in model.safetensors"]


def test_a_tensor_that_its_shard_lacks_is_named_with_the_shard(tmp_path):
    saved(made("LlamaConfig"), tmp_path).save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    place = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"][UP]
    weights = load_file(tmp_path / place)
    save_file({name: weight for name, weight in weights.items() if name != UP}, tmp_path / place)
    with pytest.raises(
        CheckpointError, match=rf"{place} lacks {UP}, which model\.safetensors\.index\.json places there"
    ):
        read_folder(tmp_path)


def test_a_stored_head_that_differs_is_kept_though_the_file_says_tied(tmp_path):
    saved(made("LlamaConfig"), tmp_path)
    edit(tmp_path, tie_word_embeddings=True)
    source = read_folder(tmp_path)
    assert not source.tied
    assert (
        "lm_head.weight is stored with other values than model.embed_tokens.weight: both are kept" in source.notes[-1]
    )
    model = transformers().AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
    assert gap(built(source), model, make_random_tokens(2, 2 * L)) <= TOLERANCE


def test_a_stored_head_that_is_the_embedding_is_the_embedding(tmp_path):
    saved(made("LlamaConfig", tie_word_embeddings=True), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    embed = weights["model.embed_tokens.weight"]
    for stored in (
        {"lm_head.weight": embed.clone()},
        {"lm_head.weight": embed.clone(), "model.embed_tokens.weight": None},
    ):
        kept = {name: weight for name, weight in (weights | stored).items() if weight is not None}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        source = read_folder(tmp_path)
        assert source.tied
        assert len(source.notes) == len(weights | stored) - len(kept)
        model = transformers().AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
        assert gap(built(source), model, make_random_tokens(2, 2 * L)) <= TOLERANCE
        assert torch.equal(built(source).embed.weight, embed)
