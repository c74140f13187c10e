"""Export and import of weights and configurations, with transformers as the oracle."""

import json
import logging
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.models.hf import (
    architecture,
    bytes_tokenizer,
    describe,
    from_hf,
    model_card,
    read_folder,
    rope_parameters,
    rope_rule,
    to_hf,
    tokenizer_files,
)
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import GELU, SwiGLU
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.rope import NTK, Linear, Llama3, NoRope, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import LeftSpin
from aptlab.testing import random_tokens, tiny_decoder

CONTEXT = 16
ROPES = {
    "standard": Standard(base=500_000.0),
    "linear": Linear(factor=4.0),
    "ntk": NTK(factor=4.0),
    "yarn": YaRN(base=100.0, factor=4.0, original_len=CONTEXT),
    "yarn_open_ends": YaRN(base=100.0, factor=4.0, original_len=CONTEXT, truncate=False),
    "llama3": Llama3(factor=4.0, original_len=CONTEXT),
}
PARTS = {
    "plain": {},
    "untied": {"tied": False},
    "biases": {"attention": partial(FullAttention, bias=True), "ffn": partial(SwiGLU, bias=True)},
    "all heads": {"shape": Shape(dim=32, depth=2, heads=4, hidden=48)},
    "qk_norm": {"attention": partial(FullAttention, qk_norm=True)},
    "qk_norm, bias, untied": {"attention": partial(FullAttention, qk_norm=True, bias=True), "tied": False},
    "eps": {
        "norm": partial(RMSNorm, eps=1e-3),
        "attention": partial(FullAttention, qk_norm=True, qk_norm_eps=1e-3),
    },
}
CASES = [(rope, "plain") for rope in ROPES] + [("standard", part) for part in PARTS] + [("yarn", "qk_norm")]


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers")
    module.utils.logging.set_verbosity_error()
    return module


def made(rope="standard", part="plain"):
    return tiny_decoder(rope=ROPES[rope], gain=4.0, **PARTS[part])


def export(net, folder, dtype="float32"):
    config = describe(net, context=CONTEXT, eos=60, dtype=dtype).config
    weights = to_hf(net.state_dict(), net.shape, tied=net.tied, dtype=getattr(torch, dtype))
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return config


@pytest.mark.parametrize(("rope", "part"), dict.fromkeys(CASES), ids=str)
def test_transformers_computes_the_same_logits(rope, part, transformers, tmp_path, caplog):
    net, tokens = made(rope, part), random_tokens(2, 4 * CONTEXT)
    export(net, tmp_path)
    wanted = net(tokens).logits.detach()
    assert wanted.abs().max() > 1
    for kind in ("eager", "sdpa"):
        with caplog.at_level(logging.WARNING, logger="transformers"):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                tmp_path, attn_implementation=kind, dtype="float32", output_loading_info=True
            )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        with torch.no_grad():
            assert (model(tokens).logits - wanted).abs().max().item() <= 1e-5
        assert model.config.tie_word_embeddings == net.tied
    assert type(model).__name__ == architecture(net)


def test_these_logits_tell_all_rules_apart():
    """So that the comparison above means something: every pair of rules differs by far more than its tolerance."""
    logits = [made(rope)(random_tokens(2, 4 * CONTEXT)).logits.detach() for rope in ROPES]
    gaps = [(a - b).abs().max().item() for i, a in enumerate(logits) for b in logits[:i]]
    assert min(gaps) > 1e-2


@pytest.mark.parametrize(("rope", "part"), dict.fromkeys(CASES), ids=str)
def test_reading_it_back_gives_equal_weights_and_the_same_model(rope, part, tmp_path):
    net = made(rope, part)
    export(net, tmp_path)
    source = read_folder(tmp_path)
    got = from_hf(source.weights, net.state_dict(), source.shape, tied=source.tied)
    assert set(got) == set(net.state_dict())
    for name, weight in net.state_dict().items():
        assert torch.equal(got[name], weight)
    assert source.shape == net.shape
    assert (source.vocab, source.tied, source.eos) == (61, net.tied, 60)
    assert source.context == (4 * CONTEXT if rope == "ntk" else CONTEXT)
    attention = net.blocks[0].attention
    assert source.qk_norm == isinstance(attention.q_norm, RMSNorm)
    assert source.attention_bias == (attention.qkv.bias is not None)
    assert source.ffn_bias == (net.blocks[0].ffn.gate_up.bias is not None)
    assert source.eps == net.norm.eps
    if rope != "ntk":
        assert source.rope == net.rope
    else:
        assert source.rope.inv_freq(16) == pytest.approx(net.rope.inv_freq(16), rel=1e-14)


@pytest.mark.parametrize("rope", ROPES)
def test_the_older_form_of_the_rope_says_the_same(rope):
    config = describe(tiny_decoder(rope=ROPES[rope]), context=CONTEXT).config
    today, older = dict(config), dict(config)
    del today["rope_theta"], today["rope_scaling"], older["rope_parameters"]
    assert rope_rule(today) == rope_rule(older)
    if older["rope_scaling"]:
        older["rope_scaling"]["type"] = older["rope_scaling"].pop("rope_type")
        assert rope_rule(older) == rope_rule(today)


def test_a_model_saved_by_transformers_in_shards_is_read(transformers, tmp_path):
    given = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
        | {"high_freq_factor": 4.0, "original_max_position_embeddings": 16},
        max_position_embeddings=128,
    )
    model = transformers.LlamaForCausalLM(given).eval()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    source = read_folder(tmp_path)
    norm = partial(RMSNorm, eps=source.eps)
    net = tiny_decoder(rope=source.rope, shape=source.shape, norm=norm, tied=source.tied, vocab=source.vocab)
    net.load_state_dict(from_hf(source.weights, net.state_dict(), source.shape, tied=source.tied))
    tokens = random_tokens(2, 40)
    with torch.no_grad():
        assert (net(tokens).logits - model(tokens).logits).abs().max().item() <= 1e-5


def test_bfloat16_weights_are_written_and_named(tmp_path):
    net = made()
    assert export(net, tmp_path, dtype="bfloat16")["dtype"] == "bfloat16"
    source = read_folder(tmp_path)
    assert {weight.dtype for weight in source.weights.values()} == {torch.bfloat16}
    got = from_hf(source.weights, net.state_dict(), source.shape, tied=True)
    assert torch.equal(got["embed.weight"], net.embed.weight.bfloat16().float())


def test_ntk_is_written_as_its_scaled_base_and_says_so():
    described = describe(made("ntk"), context=CONTEXT)
    assert described.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000 * 4 ** (16 / 14)}
    assert described.notes == [
        f"rope=ntk is written as the default rope with its scaled base, rope_theta={10_000 * 4 ** (16 / 14):.10g}"
    ]
    assert describe(made("yarn"), context=CONTEXT).notes == []


def test_yarn_writes_its_temperature_as_a_factor_on_queries_and_keys():
    parameters, _ = rope_parameters(YaRN(factor=4.0), 16)
    assert parameters["attention_factor"] == pytest.approx(1.138629436, rel=1e-9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rope": NoRope()}, "rope=none cannot be exported to format=hf.*rope=standard, linear, ntk, yarn or llama3"),
        ({"rope": YaRN(ramp="ratio")}, r"rope\.ramp=ratio cannot be exported.*train with rope\.ramp=index"),
        ({"smooth": LeftSpin}, "smooth=LeftSpin cannot be exported to format=hf.*train with smooth=none"),
        ({"ffn": GELU}, "ffn=GELU cannot be exported to format=hf.*train with ffn=swiglu"),
        ({"norm": LayerNorm}, "norm=LayerNorm cannot be exported to format=hf.*train with norm=rms"),
        (
            {"attention": partial(FullAttention, qk_norm=True), "ffn": partial(SwiGLU, bias=True)},
            r"ffn\.bias=true with attention\.qk_norm=true cannot be exported.*ffn\.bias=false or",
        ),
        (
            {"attention": partial(FullAttention, qk_norm=True, qk_norm_eps=1e-6)},
            r"norm\.eps=1e-05 differs from attention\.qk_norm_eps=1e-06.*train with equal ones",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_layout_cannot_express_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        describe(tiny_decoder(**parts), context=CONTEXT)


GIVEN = describe(tiny_decoder(), context=CONTEXT).config
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type=gpt2 cannot be imported; aptlab reads llama, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu cannot be imported"),
        ({"use_sliding_window": True}, "sliding-window layers cannot be imported"),
        ({"layer_types": ["sliding_attention"]}, "sliding-window layers cannot be imported"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be imported; take the unquantised model"),
        ({"hidden_size": None}, r"hidden_size=None in config\.json is not a whole number"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type=dynamic cannot be imported"),
        ({"rope_parameters": {"rope_type": "linear"}}, r"factor=None in config\.json is not a number"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"partial_rotary_factor=0\.5 cannot be imported"),
        ({"rope_parameters": YARN | {"attention_factor": 1.0}}, r"attention_factor=1\.0 cannot be imported.*1\.13863"),
        ({"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}, r"attention_factor=1\.0 cannot be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_we_do_not_compute_are_refused(change, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GIVEN | change))
    with pytest.raises(ConfigError, match=message):
        read_folder(tmp_path)


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"config\.json: no such file; path=… wants a folder saved by"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json holds a list, a JSON object is needed"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(GIVEN))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing; aptlab reads safetensors only"):
        read_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read.*download or copy it again"):
        read_folder(tmp_path)


def test_weights_that_do_not_fit_are_listed():
    net = tiny_decoder()
    weights = to_hf(net.state_dict(), net.shape, tied=True)
    down = weights.pop("model.layers.1.mlp.down_proj.weight")
    weights["model.layers.1.mlp.down.weight"] = down
    weights["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(1, 32)
    weights["model.rotary_emb.inv_freq"] = torch.zeros(8)
    with pytest.raises(CheckpointError) as caught:
        from_hf(weights, net.state_dict(), net.shape, tied=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the weights do not fit config.json:"
    assert any("q_proj.weight + " in line and "[65, 32], config.json says [128, 32]" in line for line in lines)
    assert "model.layers.1.mlp.down_proj.weight is missing" in lines
    assert "model.layers.1.mlp.down.weight has no place in this layout" in lines
    assert not any("inv_freq" in line for line in lines)


TEXTS = ["", "plain text", "  two  spaces\n\ttab\r\n", "naïve café 你好 🙂", "\x00\x7f\x80ÿ", "<eos> stays text"]


def test_the_byte_tokenizer_encodes_like_ours(transformers, tmp_path):
    from aptlab.data.tokenizers import Bytes

    for name, text in tokenizer_files({"kind": "bytes"}, longest=64).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(GIVEN))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Bytes()
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size == 257
    assert theirs.eos_token_id == ours.eos == 256


def test_a_trained_tokenizer_encodes_like_ours(transformers, tmp_path):
    from aptlab.data.tokenizers import BPE, Json

    ours = Json(BPE(vocab=300).train(iter(["plain text and plain words, " * 20])), "here")
    for name, text in tokenizer_files(ours.state(), longest=64).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(GIVEN))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text)
    assert theirs.eos_token_id == ours.eos


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ConfigError, match="a tokenizer of kind 'morse' cannot be exported to format=hf"):
        tokenizer_files({"kind": "morse"}, longest=8)
    assert json.loads(bytes_tokenizer())["model"]["merges"] == []


def test_the_card_says_what_was_trained_and_what_it_reached():
    meta = {"step": 400, "choices": {"rope": "yarn", "recipe": None}, "overrides": ["rope=yarn", "seed=1"]}
    rows = [{"length": 16, "loss": 1.5, "bpb": 2.1640}]
    text = model_card(
        describe(made("yarn"), context=CONTEXT).config,
        meta,
        parameters=12_345,
        notes=["a note"],
        result={"metrics": {"val/loss": 1.5, "val/ppl": None}, "lengths": rows},
    )
    for part in ("LlamaForCausalLM", "12,345", "400 optimizer steps", "rope=yarn seed=1", "rope_type=yarn", "- a note"):
        assert part in text
    assert "| val/loss | 1.5 |" in text
    assert "| 16 | 1.5000 | 2.1640 |" in text
    assert "recipe" not in text
    assert "val/ppl" not in text
