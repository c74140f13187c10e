"""Our decoders as each Hugging Face layout: the same logits in transformers, the same weights back."""

from functools import partial

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.models.hf import describe_decoder, read_folder, render_model_card
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import ClampedSwiGLU, GeGLU, SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.rope import Growth, IRope, Linear, LongRoPE, NoRope, Partial, PerLayer, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import PostNorm
from aptlab.nn.window import SlidingWindow
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.models.hf.making import CONTEXT, assert_there_and_back, built, export, gap, greedy, loaded

WIDE = Shape(dim=64, depth=3, heads=4, kv_heads=2, head_dim=16, hidden=48)  # sqrt(64) is a power of two
SIX = Shape(dim=16, depth=6, heads=2, kv_heads=1, head_dim=16, hidden=24)
LOCAL, FAR = Standard(base=100.0), Linear(base=10_000.0, factor=4.0, original_len=CONTEXT)
LISTS = {"short": tuple(1 + 0.05 * i for i in range(8)), "long": tuple(1.5 + 0.3 * i for i in range(8))}
LONGROPE = LongRoPE(base=100.0, factor=4.0, original_len=CONTEXT, **LISTS)


def attention(**options):
    return partial(FullAttention, **options)


GEMMA = {
    "smooth": PostNorm,
    "ffn": partial(GeGLU, approximate="tanh"),
    "attention": attention(qk_norm=True, window=SlidingWindow(size=5, full_every=3)),
    "rope": PerLayer(rules=(LOCAL, LOCAL, FAR)),
}
GPT_OSS = {
    "tied": False,
    "attention": attention(bias=True, sinks=True, window=SlidingWindow(size=5, full_every=2)),
    "ffn": partial(ClampedSwiGLU, limit=0.5),  # small enough to be reached
    "rope": YaRN(base=100.0, factor=4.0, original_len=CONTEXT, truncate=False),
}
IROPE = IRope(inner=Standard(base=100.0, layout="interleaved"), interval=3, chunk=7, growth=Growth(floor=5, scale=0.3))
MODELS = {
    "llama": ("LlamaForCausalLM", {}),
    "llama untied, biased": ("LlamaForCausalLM", {"tied": False, "attention": attention(bias=True)}),
    "llama gelu": ("LlamaForCausalLM", {"ffn": GeGLU}),
    "llama gelu tanh, biased": ("LlamaForCausalLM", {"ffn": partial(GeGLU, approximate="tanh", bias=True)}),
    "mistral": ("MistralForCausalLM", {"attention": attention(window=SlidingWindow(size=5))}),
    "qwen2": ("Qwen2ForCausalLM", {"attention": attention(bias="qkv")}),
    "qwen2 sliding": (
        "Qwen2ForCausalLM",
        {"attention": attention(bias="qkv", window=SlidingWindow(size=5, full_every=2))},
    ),
    "qwen3": ("Qwen3ForCausalLM", {"attention": attention(qk_norm=True, bias=True)}),
    "qwen3 sliding": ("Qwen3ForCausalLM", {"attention": attention(qk_norm=True, window=SlidingWindow(size=5))}),
    "qwen3 longrope": ("Qwen3ForCausalLM", {"attention": attention(qk_norm=True), "rope": LONGROPE}),
    "smollm3": ("SmolLM3ForCausalLM", {"rope": IRope(interval=2, chunk=None, growth=None, qk_norm=False, inner=LOCAL)}),
    "smollm3 sliding": (
        "SmolLM3ForCausalLM",
        {
            "attention": attention(bias=True, window=SlidingWindow(size=5, full_every=2)),
            "ffn": partial(SwiGLU, bias=True),
        },
    ),
    "smollm3 cycle": ("SmolLM3ForCausalLM", {"rope": PerLayer(rules=(NoRope(), LOCAL, LOCAL))}),
    "smollm3 none": ("SmolLM3ForCausalLM", {"rope": NoRope()}),
    "phi3": ("Phi3ForCausalLM", {"rope": LONGROPE, "tied": False, "shape": WIDE}),
    "phi3 sliding": (
        "Phi3ForCausalLM",
        {"rope": LONGROPE, "attention": attention(window=SlidingWindow(size=5)), "shape": WIDE},
    ),
    "longrope, narrow": ("LlamaForCausalLM", {"rope": LONGROPE}),
    "longrope, narrow, sliding": (
        "MistralForCausalLM",
        {"rope": LONGROPE, "attention": attention(window=SlidingWindow(size=5))},
    ),
    "phi3 partial": ("Phi3ForCausalLM", {"rope": Partial(fraction=0.5, base=100.0)}),
    "phi3 partial, longrope": (
        "Phi3ForCausalLM",
        {
            "rope": LongRoPE(
                base=100.0,
                factor=4.0,
                original_len=CONTEXT,
                short=LISTS["short"][:6],
                long=LISTS["long"][:6],
                fraction=0.75,
                temperature_on="cos_sin",
            ),
            "shape": WIDE,
        },
    ),
    "gemma3": ("Gemma3ForCausalLM", GEMMA | {"shape": WIDE}),
    "gemma3 untied": ("Gemma3ForCausalLM", GEMMA | {"shape": WIDE, "tied": False}),
    "gemma3 one base": (
        "Gemma3ForCausalLM",
        GEMMA | {"shape": WIDE, "rope": LOCAL, "attention": attention(qk_norm=True, bias=True), "ffn": SwiGLU},
    ),
    "gemma3 six": (
        "Gemma3ForCausalLM",
        GEMMA
        | {"shape": SIX, "rope": PerLayer(rules=(*[LOCAL] * 5, FAR))}
        | {"attention": attention(qk_norm=True, window=SlidingWindow(size=5, full_every=6))},
    ),
    "gpt-oss": ("GptOssForCausalLM", GPT_OSS),
    "gpt-oss plain rope, no window, no attention bias": (
        "GptOssForCausalLM",
        GPT_OSS | {"rope": Standard(base=100.0), "attention": attention(sinks=True), "tied": True},
    ),
    "llama4": ("Llama4ForCausalLM", {"rope": IROPE, "tied": False}),
    "llama4 wide eps": ("Llama4ForCausalLM", {"rope": IROPE, "norm": partial(RMSNorm, eps=0.01)}),
    "llama4 no chunk": (
        "Llama4ForCausalLM",
        {"rope": IRope(inner=IROPE.inner, interval=2, chunk=None, qk_norm=False, growth=Growth(floor=5))},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_logits_and_the_weights_come_back(name, tmp_path):
    architecture, parts = MODELS[name]
    net = make_tiny_decoder(gain=4.0, **parts)
    source = assert_there_and_back(net, tmp_path / "hf")
    assert source.family.architecture == architecture
    assert source.rope == net.rope
    assert source.attention.window == getattr(parts.get("attention"), "keywords", {}).get("window")
    assert (source.vocab, source.tied, source.eos, source.shape) == (61, net.tied, 60, net.shape)
    assert source.context == CONTEXT


@pytest.mark.parametrize("name", ["mistral", "qwen2 sliding", "smollm3", "phi3 partial", "gemma3", "gpt-oss", "llama4"])
def test_transformers_generates_the_same_greedy_tokens(name, tmp_path):
    net = make_tiny_decoder(gain=4.0, **MODELS[name][1])
    export(net, tmp_path)
    prompt = make_random_tokens(2, 6)
    got = loaded(tmp_path).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, eos_token_id=None
    )
    assert torch.equal(got, greedy(net, prompt, 10))


def test_a_width_whose_root_is_no_power_of_two_moves_a_weight_by_one_ulp_at_most(tmp_path):
    net = make_tiny_decoder(gain=4.0, **GEMMA)
    export(net, tmp_path)
    tokens = make_random_tokens(2, 4 * CONTEXT)
    assert gap(net, loaded(tmp_path), tokens) <= 1e-5
    again = built(read_folder(tmp_path)).state_dict()
    for weight, other in zip(net.state_dict().values(), again.values(), strict=True):
        assert ((weight - other).abs() <= 2.0**-22 * weight.abs()).all()


def test_an_attention_bias_of_no_kind_is_refused():
    with pytest.raises(ConfigError, match=r"bias='qk'; allowed: true, false, qkv \(queries, keys and values"):
        make_tiny_decoder(attention=attention(bias="qk"))
    layer = make_tiny_decoder(attention=attention(bias="qkv")).blocks[0].attention
    assert layer.qkv.bias is not None
    assert layer.out.bias is None


@pytest.mark.parametrize(("name", "words"), [("gemma3", "full_attention (rope_type=linear"), ("phi3", "=8 numbers")])
def test_the_card_says_ropes_of_many_numbers_shortly(name, words):
    config = describe_decoder(make_tiny_decoder(**MODELS[name][1]), context=CONTEXT).config
    assert words in render_model_card(config, {}, parameters=1, notes=[], result=None)


def test_these_layouts_tell_their_parts_apart():
    """So that the comparison above means something: windows, schedules and lists change the logits."""
    tokens = make_random_tokens(2, 4 * CONTEXT)
    for one, other in (
        ("llama", "mistral"),
        ("qwen2", "qwen2 sliding"),
        ("smollm3", "smollm3 none"),
        ("longrope, narrow", "llama"),
    ):
        a, b = (make_tiny_decoder(gain=4.0, **MODELS[name][1])(tokens).logits for name in (one, other))
        assert (a - b).abs().max().item() > 1e-2


@pytest.mark.parametrize("rope", [LONGROPE, YaRN(factor=4.0, original_len=CONTEXT)], ids=["longrope", "yarn"])
def test_qwen3_says_what_transformers_does_at_the_switch(rope):
    described = describe_decoder(make_tiny_decoder(rope=rope, attention=attention(qk_norm=True)), context=CONTEXT)
    assert any("recomputes cached keys" in note for note in described.notes) == (rope is LONGROPE)
