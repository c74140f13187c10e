"""Models that transformers made, read into our decoder: the same logits, at once and after training and export."""

import pytest
import torch

from aptlab.models.hf import read_folder
from aptlab.nn.positions.rope import IRope, PerLayer
from aptlab.nn.window import SlidingWindow
from aptlab.testing import make_random_tokens
from tests.models.hf.block_models import MODELS as BLOCK_MODELS
from tests.models.hf.making import TOLERANCE, built, export, gap, kinds_of, loaded, saved, transformers

L = 16
SIZES = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4 * L,
    "bos_token_id": None,
    "eos_token_id": 60,
    "pad_token_id": None,
}
SHORT, LONG = [1.0 + 0.05 * i for i in range(8)], [1.5 + 0.3 * i for i in range(8)]
THETA = {"rope_theta": 100.0}
YARN = THETA | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
LONGROPE = THETA | {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": L}
LONGROPE |= {"short_factor": SHORT, "long_factor": LONG}
ROPES = {
    "default": THETA | {"rope_type": "default"},
    "linear": THETA | {"rope_type": "linear", "factor": 4.0},
    "dynamic": THETA | {"rope_type": "dynamic", "factor": 2.0},
    "yarn": YARN,
    "yarn open ends": YARN | {"truncate": False},
    "yarn attention factor": YARN | {"attention_factor": 1.3},
    "yarn deepseek": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
    "yarn betas": YARN | {"beta_fast": 4.0, "beta_slow": 0.5},
    "llama3": YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": LONGROPE,
    "longrope attention factor": LONGROPE | {"attention_factor": 1.1},
    "proportional": THETA | {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    "proportional, divided": THETA | {"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 2.0},
}


def made(kind, **changes):
    """A configuration of a transformers model."""
    return getattr(transformers(), kind)(**(SIZES | {"rope_parameters": dict(ROPES["default"])} | changes))


def rope(name):
    return {"rope_parameters": dict(ROPES[name])} | ({"max_position_embeddings": L} if name == "dynamic" else {})


PHI = {"original_max_position_embeddings": L, "eos_token_id": 60, "rope_parameters": dict(LONGROPE)}
SLIDING = {"use_sliding_window": True, "sliding_window": 5}
TWO = {"sliding_attention": THETA | {"rope_type": "default"}}
TWO |= {"full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0}}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
MODELS = {f"llama {name}": ("LlamaConfig", rope(name)) for name in ROPES}
MODELS |= {
    "llama biased": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama head_dim": ("LlamaConfig", {"head_dim": 24, "num_key_value_heads": 1}),
    "mistral": ("MistralConfig", {"sliding_window": 5}),
    "mistral unlimited": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", rope("yarn")),
    "qwen2 sliding": ("Qwen2Config", SLIDING | {"max_window_layers": 0}),
    "qwen2 mixed": ("Qwen2Config", SLIDING | {"layer_types": MIXED}),
    "qwen3": ("Qwen3Config", {"head_dim": 24, "tie_word_embeddings": True}),
    "qwen3 mixed": ("Qwen3Config", SLIDING | {"layer_types": MIXED, "attention_bias": True}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
    "smollm3 list": ("SmolLM3Config", {"no_rope_layers": [0, 1, 1], "attention_bias": True, "mlp_bias": True}),
    "smollm3 sliding": ("SmolLM3Config", SLIDING | {"layer_types": MIXED, "no_rope_layers": [1, 0, 1]}),
    "phi3": ("Phi3Config", PHI),
    "phi3 sliding": ("Phi3Config", PHI | {"sliding_window": 5}),
    "phi3 su": ("Phi3Config", PHI | {"rope_parameters": LONGROPE | {"rope_type": "su"}}),
    "phi3 partial": ("Phi3Config", {"rope_parameters": ROPES["default"] | {"partial_rotary_factor": 0.5}}),
    "phi3 partial, longrope": (
        "Phi3Config",
        PHI
        | {"rope_parameters": LONGROPE | {"short_factor": SHORT[:6], "long_factor": LONG[:6]}}
        | {"partial_rotary_factor": 0.75},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 24, "query_pre_attn_scalar": 10, "sliding_window": 5, "layer_types": MIXED}
        | {"rope_parameters": TWO, "num_hidden_layers": 3},
    ),
    "gemma3 untied, even": (
        "Gemma3TextConfig",
        {"head_dim": 16, "sliding_window": 5, "sliding_window_pattern": 2, "num_hidden_layers": 4}
        | {"rope_parameters": TWO, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "gpt-oss one expert": (
        "GptOssConfig",
        {"head_dim": 16, "num_local_experts": 1, "num_experts_per_tok": 1, "sliding_window": 5, "layer_types": MIXED}
        | {"rope_parameters": YARN | {"truncate": False}, "swiglu_limit": 0.5},
    ),
    "llama4 dense": (
        "Llama4TextConfig",
        {"head_dim": 16, "moe_layers": [], "intermediate_size_mlp": 48, "rms_norm_eps": 0.01, "floor_scale": 5}
        | {"attention_chunk_size": 7, "no_rope_layer_interval": 3, "attn_scale": 0.3},
    ),
    "llama4 dense, scaled": (
        "Llama4TextConfig",
        {"head_dim": 16, "moe_layers": [], "intermediate_size_mlp": 48, "use_qk_norm": False, "num_hidden_layers": 4}
        | {"attention_chunk_size": 7, "attn_temperature_tuning": False, "attention_bias": True}
        | {"rope_parameters": ROPES["llama3"]},
    ),
}
MODELS |= BLOCK_MODELS


@pytest.mark.parametrize("name", MODELS)
def test_our_logits_are_those_of_transformers(name, tmp_path):
    kind, changes = MODELS[name]
    saved(made(kind, **changes), tmp_path / "theirs", gain=2.0 if "gemma" in name else 4.0)
    net = built(read_folder(tmp_path / "theirs"))
    tokens = make_random_tokens(2, 4 * L)
    shifted = torch.arange(40, 40 + 4 * L).unsqueeze(0)
    packed = torch.cat((torch.arange(30), torch.arange(34))).unsqueeze(0)
    segments = torch.tensor([1] * 30 + [2] * 34).expand(2, -1)
    # transformers takes the batch's longest, and its gpt-oss does not see where documents begin
    whole = any(word in name for word in ("dynamic", "longrope", "phi3", "gpt-oss"))
    for implementation in kinds_of(tmp_path / "theirs"):
        model = loaded(tmp_path / "theirs", implementation)
        assert gap(net, model, tokens[:, :L]) <= TOLERANCE, implementation
        assert gap(net, model, tokens) <= TOLERANCE, implementation
        if "llama4" in name:  # transformers' Llama 4 does not read position_ids everywhere
            continue
        assert gap(net, model, tokens, shifted) <= TOLERANCE, implementation
        if not whole:
            assert gap(net, model, tokens.expand(2, -1), packed.expand(2, -1), segments) <= TOLERANCE, implementation


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("llama ")] + ["llama yarn"])
def test_a_trained_import_goes_back(name, tmp_path):
    kind, changes = MODELS[name]
    saved(made(kind, **changes), tmp_path / "theirs")
    net = built(read_folder(tmp_path / "theirs")).train()
    tokens = make_random_tokens(2, 4 * L)
    before = net(tokens).logits.detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    torch.nn.functional.cross_entropy(net(tokens)[0][:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    net.eval()
    assert (net(tokens).logits - before).abs().max() > 1e-3
    config = export(net, tmp_path / "ours", context=read_folder(tmp_path / "theirs").context).config
    assert gap(net, loaded(tmp_path / "ours"), tokens) <= TOLERANCE
    assert config["max_position_embeddings"] >= L


def test_gemma_becomes_a_schedule_of_two_bases_and_a_window(tmp_path):
    kind, changes = MODELS["gemma3"]
    model = saved(made(kind, **changes), tmp_path)
    source = read_folder(tmp_path)
    assert isinstance(source.rope, PerLayer)
    assert [type(rule).__name__ for rule in source.rope.rules] == ["Standard", "Linear"]
    assert source.attention.window == SlidingWindow(size=5, full_every=2)
    assert source.scalar == 10
    net = built(source)
    assert torch.equal(net.embed.weight, model.model.embed_tokens.weight * 8)
    assert torch.equal(net.blocks[0].attention_norm.weight, 1 + model.model.layers[0].input_layernorm.weight)
    expected = (1 + model.model.layers[0].self_attn.q_norm.weight) * (24 / 10) ** 0.5
    assert (net.blocks[0].attention.q_norm.weight - expected).abs().max() < 1e-6


def test_bfloat16_gemma_weights_come_back_as_they_were(tmp_path):
    kind, changes = MODELS["gemma3 untied, even"]
    changes = changes | {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1}
    config = made(kind, **(changes | {"query_pre_attn_scalar": 16}))
    model = saved(config, tmp_path / "theirs").bfloat16()
    model.save_pretrained(tmp_path / "theirs")
    net = built(read_folder(tmp_path / "theirs"))
    export(net, tmp_path / "ours", dtype="bfloat16", context=4 * L)
    before, after = (read_folder(tmp_path / name).weights for name in ("theirs", "ours"))
    assert set(before) == set(after)
    for name, weight in before.items():
        assert torch.equal(after[name], weight), name


def test_llama4_becomes_irope(tmp_path):
    kind, changes = MODELS["llama4 dense"]
    saved(made(kind, **changes), tmp_path)
    rope = read_folder(tmp_path).rope
    assert isinstance(rope, IRope)
    assert (rope.interval, rope.chunk, rope.qk_norm, rope.inner.layout) == (3, 7, True, "interleaved")
    assert (rope.growth.floor, rope.growth.scale) == (5, 0.3)


def test_the_language_model_of_a_gemma_that_sees_is_read(tmp_path):
    import json

    from safetensors.torch import load_file, save_file

    kind, changes = MODELS["gemma3"]
    model = saved(made(kind, **changes), tmp_path / "text")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {}, "eos_token_id": [60, 3]}
    weights = load_file(tmp_path / "text" / "model.safetensors")
    for form in ("language_model.model.", "model.language_model."):
        renamed = {form + name.removeprefix("model."): weight for name, weight in weights.items()}
        renamed["vision_tower.layer.weight"] = torch.zeros(2, 2)
        folder = tmp_path / form
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(outer))
        save_file(renamed, folder / "model.safetensors")
        source = read_folder(folder)
        assert source.eos == 60
        assert gap(built(source), model, make_random_tokens(2, 4 * L)) <= TOLERANCE
