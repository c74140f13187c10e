"""Families that differ by numbers and details: in, trained, read with a cache and out again, all as transformers."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from aptlab.commands import export as export_command
from aptlab.commands import import_ as import_command
from aptlab.config import compose
from aptlab.errors import ConfigError
from aptlab.models.hf import build_tokenizer_files, describe_decoder, read_attention, read_folder
from aptlab.models.hf.experts import find_experts
from aptlab.nn.attention import FullAttention, QKNorm
from aptlab.nn.positions.rope import GrowingQueries, Growth, IRope, NoRope, Standard, YaRN
from aptlab.nn.smooth import PostNorm, ResidualScale
from aptlab.nn.window import SlidingWindow
from aptlab.restore.load import load_network
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.models.hf.making import TOLERANCE, gap, loaded, saved, transformers
from tests.models.hf.test_from_transformers import ROPES, SIZES, THETA, YARN, L

MULTIPLIERS = {"embedding_multiplier": 3.0, "attention_multiplier": 0.1}
MULTIPLIERS |= {"residual_multiplier": 0.22, "logits_scaling": 0.5}
BETA = {"llama_4_scaling_beta": 0.1}
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "layer_types": None}
ALPHA = THETA | {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0}
ALPHA |= {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
HALF = {"rope_parameters": ROPES["default"] | {"partial_rotary_factor": 0.5}}
SLIDING, FULL = "sliding_attention", "full_attention"
MODELS = {  # class of the configuration, changes, layout that it leaves in
    "granite": ("GraniteConfig", MULTIPLIERS | {"tie_word_embeddings": True}, "granite"),
    "granite biased": (
        "GraniteConfig",
        MULTIPLIERS | {"attention_bias": True, "mlp_bias": True, "rope_parameters": YARN},
        "granite",
    ),
    "granite4": (
        "GraniteMoeHybridConfig",
        MULTIPLIERS
        | {"num_local_experts": 0, "shared_intermediate_size": 48, "position_embedding_type": "rope"}
        | {"layer_types": ["attention"] * 3},
        "granite",
    ),
    "seed_oss": ("SeedOssConfig", {"head_dim": 24}, "qwen2"),
    "seed_oss out bias": ("SeedOssConfig", {"attention_out_bias": True, "mlp_bias": True}, "llama"),
    "seed_oss no bias": ("SeedOssConfig", {"attention_bias": False, "head_dim": 8}, "llama"),
    "ernie4_5": ("Ernie4_5Config", {"head_dim": 24}, "llama"),
    "ernie4_5 biased": ("Ernie4_5Config", {"use_bias": True, "tie_word_embeddings": False}, "llama"),
    "qwen2 later layers": ("Qwen2Config", WINDOW | {"max_window_layers": 1}, "qwen2"),
    "qwen3 any layers": ("Qwen3Config", WINDOW | {"layer_types": [FULL, FULL, SLIDING]}, "qwen3"),
    "ministral": (
        "MinistralConfig",
        {"head_dim": 16, "sliding_window": 5, "layer_types": [FULL, SLIDING, SLIDING]},
        "smollm3",
    ),
    "ministral3": ("Ministral3Config", {"head_dim": 24, "rope_parameters": YARN | BETA}, "ministral3"),
    "ministral3 sliding": ("Ministral3Config", {"sliding_window": 5, "rope_parameters": YARN | BETA}, "ministral3"),
    "hunyuan": ("HunYuanDenseV1Config", {"head_dim": 24, "tie_word_embeddings": True}, "hunyuan_v1_dense"),
    "hunyuan alpha": ("HunYuanDenseV1Config", {"head_dim": 16, "rope_parameters": ALPHA}, "hunyuan_v1_dense"),
    "hunyuan biased, yarn": (
        "HunYuanDenseV1Config",
        {"head_dim": 16, "rope_parameters": YARN, "attention_bias": True},
        "hunyuan_v1_dense",
    ),
    "glm": ("GlmConfig", HALF | {"head_dim": 24}, "glm"),
    "glm no bias": ("GlmConfig", HALF | {"head_dim": 16, "attention_bias": False}, "glm"),
    "glm4": ("Glm4Config", HALF | {"head_dim": 24}, "glm4"),
    "glm4 yarn": ("Glm4Config", {"head_dim": 24, "rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "glm4"),
}
MORE = {name for name in MODELS if " " in name} - {"qwen2 later layers", "hunyuan alpha"}  # forms of what is there


def make_folder(name, path):
    """A model of transformers of byte tokens, in a folder; transformers' model."""
    kind, changes, _ = MODELS[name]
    given = SIZES | {"rope_parameters": dict(ROPES["default"]), "vocab_size": 257, "eos_token_id": 256} | changes
    model = saved(getattr(transformers(), kind)(**given), path, gain=3.0)
    write_tokenizer(path)
    return model


def write_tokenizer(path):
    for file, text in build_tokenizer_files({"kind": "bytes"}, longest=64).items():
        (path / file).write_text(text, encoding="utf-8")


def train(net, tokens, steps=3):
    """A few steps of Adam; the losses."""
    losses = []
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=3e-3)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(net(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    return losses


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in MORE else name for name in MODELS]
)
def test_a_family_goes_in_trains_decodes_and_goes_out(name, tmp_path):
    theirs, run, back = tmp_path / "theirs", tmp_path / "run", tmp_path / "back"
    model = make_folder(name, theirs)
    assert import_command.run([f"path={theirs}", f"out={run}"]) == 0
    got = load_network(run)
    tokens, shifted = make_random_tokens(2, 4 * L, vocab=257), torch.arange(40, 40 + 4 * L).unsqueeze(0)
    for attention in ("eager", "sdpa"):
        model = loaded(theirs, attention)
        assert gap(got.net, model, tokens[:, :L]) <= TOLERANCE, attention
        assert gap(got.net, model, tokens) <= TOLERANCE, attention
        assert gap(got.net, model, tokens, shifted) <= TOLERANCE, attention
    assert compose("train", got.meta["overrides"]).resolved() == got.meta["config"]
    with torch.no_grad():
        assert (decode_in_chunks(got.net, tokens, [7, 1]) - got.net(tokens).logits).abs().max() <= TOLERANCE
    assert export_command.run([f"ckpt={run}", f"out={back}"]) == 0
    assert json.loads((back / "config.json").read_text())["model_type"] == MODELS[name][2]
    assert gap(got.net, loaded(back), tokens) <= TOLERANCE
    losses = train(got.net, tokens)
    assert losses[-1] < losses[0]


WITH_EYES = {  # class of the whole, configuration of its language model, changes of that
    "mistral3": ("Mistral3", "MistralConfig", {"sliding_window": None}),
    "ministral3 in mistral3": ("Mistral3", "Ministral3Config", {"head_dim": 16, "rope_parameters": YARN | BETA}),
    "llava": ("Llava", "LlamaConfig", {}),
}


def make_folder_with_eyes(name, tied, path):
    """A model of transformers that also sees, in a folder; transformers' model."""
    outer, inner, changes = WITH_EYES[name]
    module = transformers()
    given = SIZES | {"rope_parameters": ROPES["default"], "vocab_size": 257, "eos_token_id": 256} | changes
    eyes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees = module.PixtralVisionConfig(**eyes, head_dim=16, image_size=32, patch_size=8)
    text = getattr(module, inner)(**given, tie_word_embeddings=tied)
    config = getattr(module, f"{outer}Config")(vision_config=sees, text_config=text, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = getattr(module, f"{outer}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.08 if weight.ndim > 1 else 1 + 0.3 * torch.randn_like(weight))
    model.save_pretrained(path)
    write_tokenizer(path)
    return model


@pytest.mark.parametrize(("name", "tied"), list(zip(WITH_EYES, (False, True, True), strict=True)))
def test_the_language_model_of_a_model_that_sees(name, tied, tmp_path, capsys):
    model = make_folder_with_eyes(name, tied, tmp_path / "theirs")
    assert import_command.run([f"path={tmp_path / 'theirs'}", f"out={tmp_path / 'run'}"]) == 0
    told = capsys.readouterr().out
    assert all(part in told for part in ("left out: ", "vision_tower (13,408 parameters)", "multi_modal_projector ("))
    assert "; aptlab reads text alone" in told
    net, tokens = load_network(tmp_path / "run").net, make_random_tokens(2, 4 * L, vocab=257)
    assert net.tied == tied
    assert gap(net, model, tokens[:, :L]) <= TOLERANCE
    assert gap(net, model, tokens) <= TOLERANCE


def test_quantised_weights_of_a_model_that_sees_are_refused(tmp_path):
    """Ministral 3 is released in float8, and says so outside its text_config."""
    config = {"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ConfigError, match="quantised weights cannot be imported; take the unquantised model"):
        read_folder(tmp_path)


FEW = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 64}


def test_numbers_of_other_layouts_become_options():
    hunyuan = read_attention(FEW | {"model_type": "hunyuan_v1_dense", "rope_parameters": ALPHA, "head_dim": 16})
    assert hunyuan.rope == Standard(base=100.0 * 1000 ** (16 / 14))
    assert hunyuan.notes == ("rope_parameters.alpha=1000 is read as rope_theta=268269.5795, which it means",)
    ministral = read_attention(FEW | {"model_type": "ministral3", "rope_parameters": YARN | BETA})
    assert ministral.rope.inner.factor == 4.0
    assert ministral.rope.growth == Growth(floor=L, scale=0.1, offset=0)
    windows = WINDOW | {"model_type": "qwen2", "num_hidden_layers": 5}
    for first, window in ((0, SlidingWindow(size=5)), (2, SlidingWindow(size=5, full_layers=(0, 1))), (5, None)):
        assert read_attention(FEW | windows | {"max_window_layers": first}).window == window


EXPERTS = [
    ({"model_type": "mixtral"}, "model_type=mixtral"),
    ({"model_type": "qwen2_moe", "num_experts": 60}, "num_experts=60"),
    ({"model_type": "qwen3_moe"}, "model_type=qwen3_moe"),
    ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "n_routed_experts=256"),
    ({"model_type": "deepseek_v2"}, "model_type=deepseek_v2"),
    ({"model_type": "olmoe"}, "model_type=olmoe"),
    ({"model_type": "granitemoe", "num_local_experts": 40}, "num_local_experts=40"),
    ({"model_type": "ernie4_5_moe", "moe_num_experts": 64}, "moe_num_experts=64"),
    ({"model_type": "hunyuan_v1_moe", "num_experts": [1, 64]}, "num_experts=[1, 64]"),
    ({"model_type": "glm4_moe"}, "model_type=glm4_moe"),
    ({"model_type": "phimoe"}, "model_type=phimoe"),
    ({"model_type": "jamba"}, "model_type=jamba"),
    ({"model_type": "dbrx", "ffn_config": {"moe_num_experts": 16}}, "moe_num_experts=16"),
    ({"model_type": "qwen3_vl_moe", "text_config": {"num_experts": 128}}, "num_experts=128"),
    ({"model_type": "unheard_of", "num_experts": 8}, "num_experts=8"),
]
HYBRID = {"model_type": "granitemoehybrid", "layer_types": ["attention"] * 3, "num_local_experts": 0}


@pytest.mark.parametrize(("config", "why"), EXPERTS, ids=[config["model_type"] for config, _ in EXPERTS])
def test_mixtures_of_experts_are_refused_by_name(config, why, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    kind = config["model_type"]
    with pytest.raises(
        ConfigError, match=f"config.json: model_type={kind} cannot be imported: its feed-forward layers are a mix"
    ) as e:
        read_folder(tmp_path)
    assert f"({why}), which aptlab does not have yet; it reads llama, mistral, qwen2" in str(e.value)


def test_experts_beside_a_dense_layer_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HYBRID | {"num_local_experts": 64}))
    with pytest.raises(ConfigError, match=r"hybrid with num_local_experts=64 cannot be .* this layout with 0"):
        read_folder(tmp_path)
    assert read_attention(FEW | HYBRID).rope == NoRope()  # position_embedding_type is null


def test_a_dense_config_is_no_mixture():
    assert find_experts({"model_type": "llama", "num_experts": 1, "num_local_experts": None}) is None
    assert find_experts({"model_type": "gemma4", "text_config": {"num_experts": None}}) is None


WRONG = [
    (
        {"model_type": "seed_oss", "attention_bias": False, "attention_out_bias": True},
        "attention_out_bias=true with attention_bias=false cannot be imported: aptlab's attention.bias is of all four",
    ),
    ({"model_type": "granitemoehybrid"}, r"layer_types=\['linear_attention', .*must be 3 of full_attention"),
    (
        {"model_type": "ministral3", "rope_parameters": YARN},
        r"rope_parameters\.llama_4_scaling_beta=None in config\.json is not a number, and the queries of model_type=mi",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_configs_that_nobody_computes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        read_attention(FEW | change)


AFTER = {"attention": partial(FullAttention, qk_norm=QKNorm(where="after"))}
GROWING = GrowingQueries(inner=Standard(base=100.0), growth=Growth(floor=L, offset=0))
LEFT = [
    ({"rope": replace(GROWING, growth=Growth(floor=L))}, r"growth with offset=1 cannot .*Ministral 3 .*with offset=0"),
    (
        {"rope": replace(GROWING, inner=YaRN(original_len=2 * L))},
        r"rope\.growth\.floor=16 with rope\.inner\.original_len=32 cannot be exported to format=hf: the Ministral 3",
    ),
    (
        {"rope": IRope(interval=3, growth=Growth(offset=0))},
        r"growth with offset=0 cannot be exported .* Llama 4 .*train with offset=1",
    ),
    ({"rope": GROWING, "smooth": ResidualScale}, r"rope=growing cannot be exported .* Granite .*train with rope=yarn"),
    (AFTER | {"rope": YaRN()}, r"rope\.temperature_on=logits cannot be exported .* Hunyuan .*which the norm after"),
    (AFTER | {"smooth": PostNorm}, r"attention\.qk_norm=rms over head after the rotation cannot .* Gemma 3"),
    (
        {"smooth": lambda dim, *, layer, site: ResidualScale(dim, layer=layer, site=site, factor=1 + layer)},
        r"smooth\.factor differs between sites \(1, 2, 3\) and cannot be exported to format=hf: Granite has one",
    ),
]


@pytest.mark.parametrize(("parts", "message"), LEFT, ids=[message[:30] for _, message in LEFT])
def test_what_these_layouts_cannot_say_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        describe_decoder(make_tiny_decoder(**parts), context=L)
