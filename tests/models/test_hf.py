"""Export and import of weights and configurations, with transformers as the oracle."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.models.hf import (
    build_bytes_tokenizer,
    build_rope_parameters,
    build_tokenizer_files,
    convert_from_hf,
    convert_to_hf,
    describe_decoder,
    read_folder,
    read_rope_rule,
    render_model_card,
)
from aptlab.models.hf.family import LLAMA
from aptlab.nn.attention import FullAttention, LinearAttention, QKNorm
from aptlab.nn.ffn import GELU, ClampedSwiGLU, SwiGLU
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.positions.absolute import SinusoidalPositions
from aptlab.nn.positions.bias import ALiBi
from aptlab.nn.positions.rope import NTK, IRope, Linear, Llama3, NoRope, Partial, PerLayer, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import LeftSpin, PostNorm
from aptlab.nn.window import SlidingWindow
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.models.hf.making import assert_there_and_back, built, export

CONTEXT = 16
ROPES = {
    "standard": Standard(base=500_000.0),
    "linear": Linear(factor=4.0, original_len=CONTEXT),
    "ntk": NTK(factor=4.0, original_len=CONTEXT),
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
    return make_tiny_decoder(rope=ROPES[rope], gain=4.0, **PARTS[part])


@pytest.mark.parametrize(("rope", "part"), dict.fromkeys(CASES), ids=str)
def test_transformers_computes_the_same_logits_and_the_weights_come_back(rope, part, tmp_path):
    net = made(rope, part)
    source = assert_there_and_back(net, tmp_path / "hf")
    assert source.shape == net.shape
    assert (source.vocab, source.tied, source.eos) == (61, net.tied, 60)
    assert source.context == (4 * CONTEXT if rope == "ntk" else CONTEXT)
    attention = net.blocks[0].attention
    assert source.attention.qk_norm == isinstance(attention.q_norm, RMSNorm)
    assert source.attention.bias == (attention.qkv.bias is not None)
    assert source.ffn_bias == (net.blocks[0].ffn.gate_up.bias is not None)
    assert source.eps == net.norm.eps
    if rope != "ntk":
        assert source.rope == net.rope
    else:
        assert source.rope.inv_freq(16) == pytest.approx(net.rope.inv_freq(16), rel=1e-14)


def test_these_logits_tell_all_rules_apart():
    """So that the comparison above means something: every pair of rules differs by far more than its tolerance."""
    logits = [made(rope)(make_random_tokens(2, 4 * CONTEXT)).logits.detach() for rope in ROPES]
    gaps = [(a - b).abs().max().item() for i, a in enumerate(logits) for b in logits[:i]]
    assert min(gaps) > 1e-2


@pytest.mark.parametrize("rope", ROPES)
def test_the_older_form_of_the_rope_says_the_same(rope):
    config = describe_decoder(make_tiny_decoder(rope=ROPES[rope]), context=CONTEXT).config
    today, older = dict(config), dict(config)
    del today["rope_theta"], today["rope_scaling"], older["rope_parameters"]
    assert read_rope_rule(today) == read_rope_rule(older)
    if older["rope_scaling"]:
        older["rope_scaling"]["type"] = older["rope_scaling"].pop("rope_type")
        assert read_rope_rule(older) == read_rope_rule(today)


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
    net = built(read_folder(tmp_path))
    tokens = make_random_tokens(2, 40)
    with torch.no_grad():
        assert (net(tokens).logits - model(tokens).logits).abs().max().item() <= 1e-5


def test_bfloat16_weights_are_written_and_named(tmp_path):
    net = made()
    assert export(net, tmp_path, dtype="bfloat16").config["dtype"] == "bfloat16"
    source = read_folder(tmp_path)
    assert {weight.dtype for weight in source.weights.values()} == {torch.bfloat16}
    got = convert_from_hf(source, net.state_dict())
    assert torch.equal(got["embed.weight"], net.embed.weight.bfloat16().float())


def test_ntk_is_written_as_its_scaled_base_and_says_so():
    described = describe_decoder(made("ntk"), context=CONTEXT)
    assert described.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000 * 4 ** (16 / 14)}
    assert described.notes == [
        f"rope=ntk is written as the default rope with its scaled base, rope_theta={10_000 * 4 ** (16 / 14):.10g}"
    ]
    assert describe_decoder(made("yarn"), context=CONTEXT).notes == []


def test_yarn_writes_its_temperature_as_a_factor_on_queries_and_keys():
    parameters, _ = build_rope_parameters(YaRN(factor=4.0), 16)
    assert parameters["attention_factor"] == pytest.approx(1.138629436, rel=1e-9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"bias": ALiBi}, "bias=ALiBi cannot be exported to format=hf.*train with bias=none"),
        (
            {"embed": SinusoidalPositions},
            "embed=SinusoidalPositions cannot be exported.*train with embed=none",
        ),
        (
            {"attention": partial(FullAttention, sinks=True)},
            r"ffn other than swiglu_clamped cannot be exported.*gpt-oss is the layout with attention\.sinks=true.*"
            r"train with ffn=swiglu_clamped",
        ),
        (
            {"attention": partial(FullAttention, sinks=True), "ffn": partial(ClampedSwiGLU, bias=False)},
            r"ffn\.bias=false cannot be exported.*gpt-oss is the layout.*train with ffn\.bias=true",
        ),
        (
            {"ffn": ClampedSwiGLU},
            r"attention\.sinks=false cannot be exported.*ffn=swiglu_clamped.*train with attention\.sinks=true",
        ),
        (
            {"ffn": ClampedSwiGLU, "smooth": PostNorm, "attention": partial(FullAttention, sinks=True)},
            r"smooth=post_norm cannot be exported.*gpt-oss.*train with smooth=none",
        ),
        (
            {"ffn": ClampedSwiGLU, "rope": IRope(), "attention": partial(FullAttention, sinks=True)},
            r"rope=irope with blocks, growth or qk_norm cannot be exported.*gpt-oss.*train with rope=yarn",
        ),
        ({"attention": LinearAttention}, "attention=LinearAttention cannot be exported.*train with attention=full"),
        (
            {"smooth": PostNorm, "attention": partial(FullAttention, qk_norm=QKNorm(over="all_heads"))},
            r"attention\.qk_norm=rms over all_heads cannot be exported.*Gemma 3 is the layout with smooth=post_norm.*"
            r"train with attention\.qk_norm=true",
        ),
        (
            {"smooth": partial(PostNorm, eps=1e-3), "attention": partial(FullAttention, qk_norm=True)},
            r"norm\.eps=1e-05 differs from smooth\.eps=0\.001, and the Gemma 3 layout has one for both",
        ),
        (
            {"rope": NoRope(), "attention": partial(FullAttention, qk_norm=True)},
            r"a rope without rotation in some layers cannot be exported.*Qwen 3.*train with a rope that rotates all",
        ),
        (
            {"rope": IRope(), "attention": partial(FullAttention, window=SlidingWindow(size=5))},
            r"attention=sliding cannot be exported.*Llama 4 is the layout of rope=irope.*train with attention=full",
        ),
        (
            {"rope": Partial(), "attention": partial(FullAttention, window=SlidingWindow(size=5, full_every=2))},
            r"attention\.window\.full_every cannot be exported.*Phi-3.*train with attention\.window\.full_every=null",
        ),
        (
            {"rope": PerLayer(rules=(Standard(), Standard(base=5.0)))},
            r"rope=PerLayer differs from layer to layer and cannot be exported.*train with one rule for all layers",
        ),
        (
            {"rope": PerLayer(rules=(Standard(), Standard(base=5.0)))}
            | {"smooth": PostNorm, "attention": partial(FullAttention, qk_norm=True)},
            r"rope=PerLayer cannot be exported.*one rule for sliding layers and one for full.*attention\.window does",
        ),
        ({"smooth": LeftSpin}, "smooth=LeftSpin cannot be exported to format=hf.*train with smooth=none"),
        ({"ffn": GELU}, "ffn=gelu cannot be exported to format=hf.*Llama.*train with ffn=swiglu"),
        (
            {"norm": LayerNorm},
            r"size\.head_dim=16, which is not dim / heads, cannot be exported.*StableLM is the layout with norm=layer",
        ),
        (
            {"attention": partial(FullAttention, qk_norm=True), "ffn": partial(SwiGLU, bias=True)},
            r"ffn\.bias=true cannot be exported.*Qwen 3 is the layout with attention\.qk_norm=true.*ffn\.bias=false",
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
        describe_decoder(make_tiny_decoder(**parts), context=CONTEXT)


GIVEN = describe_decoder(make_tiny_decoder(), context=CONTEXT).config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "gpt2"},
            "model_type=gpt2 cannot be imported; aptlab reads llama, mistral, qwen2, qwen3",
        ),
        ({"model_type": "gpt_oss"}, r"model_type=gpt_oss with num_local_experts=128 cannot be imp.*read_attention"),
        ({"model_type": "qwen3_moe"}, "model_type=qwen3_moe cannot be imported: its feed-forward layers are a mixture"),
        ({"model_type": "llama4_text"}, r"model_type=llama4_text with moe_layers other than \[\] cannot be imported"),
        (
            {"model_type": "llama4_text", "moe_layers": [], "use_qk_norm": False, "no_rope_layers": [0, 1, 1]},
            r"no_rope_layers=\[0, 1, 1\] with these layer_types cannot be imported.*every n-th layer",
        ),
        (
            {"model_type": "smollm3", "no_rope_layers": [1]},
            r"no_rope_layers in config\.json has 1 numbers, the",
        ),
        (
            {"hidden_act": "relu"},
            "hidden_act=relu cannot be imported; ffn=swiglu is silu, ffn=geglu is gelu",
        ),
        (
            {"layer_types": ["sliding_attention"] * 3},
            "layer_types with sliding_attention cannot .* model_type=llama",
        ),
        (
            {"layer_types": ["sliding_attention"]},
            r"layer_types=\['sliding_attention'\] in config\.json must be 3 of",
        ),
        (
            {"layer_types": ["linear_attention"] * 3},
            "must be 3 of full_attention, sliding_attention, chunked_att",
        ),
        (
            {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
            r"sliding_window=None in config\.json with sliding layers; repair the file",
        ),
        (
            {"model_type": "gemma3_text", "final_logit_softcapping": 30.0},
            "final_logit_softcapping=30.0 cannot be",
        ),
        (
            {"model_type": "gemma3_text", "use_bidirectional_attention": True},
            "use_bidirectional_attention=true cannot",
        ),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be imported; take the unquantised model"),
        ({"hidden_size": None}, r"hidden_size=None in config\.json is not a whole number"),
        ({"rope_parameters": {"rope_type": "linear"}}, r"factor=None in config\.json is not a number"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"partial_rotary_factor=0\.5 cannot be imported"),
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


def test_weights_that_do_not_fit_are_listed(tmp_path):
    net = make_tiny_decoder()
    weights = convert_to_hf(net, LLAMA)
    down = weights.pop("model.layers.1.mlp.down_proj.weight")
    weights["model.layers.1.mlp.down.weight"] = down
    weights["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(1, 32)
    weights["model.rotary_emb.inv_freq"] = torch.zeros(8)
    export(net, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        convert_from_hf(replace(read_folder(tmp_path), weights=weights), net.state_dict())
    lines = str(caught.value).splitlines()
    assert lines[0] == "the weights do not fit config.json:"
    assert any("q_proj.weight + " in line and "[65, 32], config.json says [128, 32]" in line for line in lines)
    assert "model.layers.1.mlp.down_proj.weight is missing in model.safetensors" in lines
    assert "model.layers.1.mlp.down.weight has no place in this layout" in lines
    assert not any("inv_freq" in line for line in lines)


TEXTS = ["", "plain text", "  two  spaces\n\ttab\r\n", "naïve café 你好 🙂", "\x00\x7f\x80ÿ", "<eos> stays text"]


def test_the_byte_tokenizer_encodes_like_ours(transformers, tmp_path):
    from aptlab.data.tokenizers import ByteTokenizer

    for name, text in build_tokenizer_files({"kind": "bytes"}, longest=64).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(GIVEN))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), ByteTokenizer()
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size == 257
    assert theirs.eos_token_id == ours.eos == 256


def test_a_trained_tokenizer_encodes_like_ours(transformers, tmp_path):
    from aptlab.data.tokenizers import BPE, JsonTokenizer

    ours = JsonTokenizer(BPE(vocab=300).train(iter(["plain text and plain words, " * 20])), "here")
    for name, text in build_tokenizer_files(ours.state(), longest=64).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(GIVEN))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text)
    assert theirs.eos_token_id == ours.eos


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ConfigError, match="a tokenizer of kind 'morse' cannot be exported to format=hf"):
        build_tokenizer_files({"kind": "morse"}, longest=8)
    assert json.loads(build_bytes_tokenizer())["model"]["merges"] == []


def test_the_card_says_what_was_trained_and_what_it_reached():
    meta = {"step": 400, "choices": {"rope": "yarn", "recipe": None}, "overrides": ["rope=yarn", "seed=1"]}
    rows = [{"length": 16, "loss": 1.5, "bpb": 2.1640}]
    text = render_model_card(
        describe_decoder(made("yarn"), context=CONTEXT).config,
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
