"""Layouts whose block is another one, with the values that the Hub's config.json files have: logits, cache, words."""

import json
from functools import partial

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.models import Decoder, HeadRule
from aptlab.models.hf import describe_decoder, read_attention, read_folder
from aptlab.models.hf.family_blocks import BLOCKS, GPT_NEOX
from aptlab.models.hf.read import read_activation
from aptlab.nn.attention import FullAttention, LogitRule, QKNorm
from aptlab.nn.block import Block, Site
from aptlab.nn.ffn import GELU, GeGLU, SwiGLU
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.positions.rope import PerLayer, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain, PostNorm
from aptlab.nn.window import SlidingWindow
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.models.hf.block_models import PUBLISHED, SMALL, L
from tests.models.hf.making import TOLERANCE, built, export, gap, loaded, saved, transformers


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_read_as_transformers_reads_it(name, tmp_path):
    given = SMALL | PUBLISHED[name]
    config = transformers().AutoConfig.for_model(**given)
    model = saved(config, tmp_path, gain=2.0)
    with torch.no_grad():
        model.get_output_embeddings().weight.div_(given.get("logit_scale", 1.0))  # else too flat to compare
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(given))  # the Hub's own words, not those of transformers 5
    source = read_folder(tmp_path)
    net = built(source)
    tokens = make_random_tokens(2, 4 * L)
    assert gap(net, model, tokens[:, :L]) <= TOLERANCE
    assert gap(net, model, tokens) <= TOLERANCE
    with torch.no_grad():
        assert (decode_in_chunks(net, tokens, [L, 7, 1]) - net(tokens).logits).abs().max() <= TOLERANCE
    assert source.attention.eps == given.get("rms_norm_eps", given.get("layer_norm_eps"))
    assert source.tied == given.get("tie_word_embeddings", "gemma" in name or "command" in name)
    left_out = [note for note in source.attention.notes if "resid_pdrop=0.1" in note]
    assert len(left_out) == (name == "phi-2")


def test_every_layout_of_another_block_is_among_the_published_ones():
    assert {given["model_type"] for given in PUBLISHED.values()} == {family.model_type for family in BLOCKS}


def test_the_values_of_the_hub_are_kept(tmp_path):
    def read(name):
        saved(transformers().AutoConfig.for_model(**(SMALL | PUBLISHED[name])), tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(SMALL | PUBLISHED[name]))
        return read_folder(tmp_path / name)

    gemma = read("gemma-2-27b")
    assert (gemma.attention.logits, gemma.block.head) == (
        LogitRule(scale=1 / 12, softcap=50.0),
        HeadRule(softcap=30.0),
    )
    olmo = read("Olmo-3-1025-7B")
    assert olmo.rope == PerLayer(
        rules=(*(Standard(base=500_000.0),) * 3, YaRN(base=500_000.0, factor=8.0, original_len=L, **OLMO_YARN))
    )
    assert olmo.context == L
    assert read("c4ai-command-r-plus").attention.qk_norm == QKNorm(kind="layer", over="each_head")
    assert read("phi-2").rope.fraction == 0.4
    assert read("pythia-160m").rope.fraction == 0.25


OLMO_YARN = {"beta_fast": 32.0, "beta_slow": 1.0}


def test_the_sandwich_of_a_smoothing_is_gemma_2_too(tmp_path):
    net = make_tiny_decoder(
        gain=4.0,
        smooth=PostNorm,
        ffn=partial(GeGLU, approximate="tanh"),
        head=HeadRule(softcap=5.0),
        attention=partial(
            FullAttention, window=SlidingWindow(size=5, full_every=2), logits=LogitRule(scale=0.2, softcap=2.0)
        ),
    )
    described = export(net, tmp_path, context=L)
    words = ("architectures", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping")
    assert [described.config[word] for word in words] == [["Gemma2ForCausalLM"], 25, 2.0, 5.0]
    tokens = make_random_tokens(2, 4 * L)
    assert gap(net, loaded(tmp_path), tokens) <= TOLERANCE
    assert gap(built(read_folder(tmp_path)), loaded(tmp_path), tokens) <= TOLERANCE


def write(folder, **changes):
    """A config.json of OLMo 3 without weights."""
    given = SMALL | PUBLISHED["Olmo-3-1025-7B"] | changes
    (folder / "config.json").write_text(json.dumps(given))
    return read_attention(given)


def test_a_theta_that_transformers_gives_full_layers_alone_is_told(tmp_path):
    read = write(tmp_path, rope_theta=10_000.0)
    assert [rule.base for rule in read.rope.rules] == [500_000.0] * 3 + [10_000.0]
    assert read.notes[0].startswith("warning: rope_theta=10000 counts in full layers alone, sliding layers have 500000")
    theirs = transformers().AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert (theirs["sliding_attention"]["rope_theta"], theirs["full_attention"]["rope_theta"]) == (500_000.0, 10_000.0)


def test_rope_parameters_that_transformers_ignores_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"names neither full_attention nor sliding_attention.*repair the file"):
        write(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 100.0})


def test_an_activation_without_a_gate_that_we_do_not_have_is_refused():
    with pytest.raises(ConfigError, match="hidden_act=silu cannot be imported with model_type=gpt_neox; ffn=gelu"):
        read_activation(GPT_NEOX, {"hidden_act": "silu"})


OTHERS = [
    (
        {"norm": partial(LayerNorm, bias=False)},
        r"norm=layer norm\.bias=false cannot be exported.*StableLM.*train with norm=layer",
    ),
    (
        {"attention": partial(FullAttention, logits=LogitRule(softcap=50.0))},
        r"attention\.logits\.softcap cannot be exported.*Llama.*train with attention\.logits\.softcap=null",
    ),
    (
        {"attention": partial(FullAttention, logits=LogitRule(scale=0.3)), "smooth": PostNorm},
        r"attention\.logits\.scale=0\.3 cannot be exported.*whole number n; train with .*scale=0\.30151",
    ),
    ({"head": HeadRule(scale=0.5)}, r"model\.head\.scale cannot be exported.*train with model\.head\.scale=1"),
    ({"head": HeadRule(softcap=5.0)}, r"model\.head\.softcap cannot be exported.*with model\.head\.softcap=null"),
    (
        {"head": HeadRule(bias=True)},
        r"model\.head\.bias=true cannot be exported.*train with model\.head\.bias=false",
    ),
]
MEANS = {"norm": LayerNorm, "shape": Shape(dim=32, depth=2, heads=4, kv_heads=2, hidden=48)}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"ffn": partial(GELU, bias=True)},
            r"size\.kv_heads cannot be exported.*NeoX.*train with size\.kv_heads=null",
        ),
        ({"ffn": GELU}, r"ffn\.bias=false cannot be exported.*GPT-NeoX is the layout.*train with ffn\.bias=true"),
        (
            {"attention": partial(FullAttention, window=SlidingWindow(size=5))},
            r"attention=sliding cannot be exported.*StableLM.*train with attention=full",
        ),
    ],
)
def test_what_these_layouts_lack_is_told(parts, message):
    with pytest.raises(ConfigError, match=message):
        describe_decoder(make_tiny_decoder(**(MEANS | parts)), context=L)


@pytest.mark.parametrize(("parts", "message"), OTHERS)
def test_what_others_lack_of_these_is_told(parts, message):
    with pytest.raises(ConfigError, match=message):
        describe_decoder(make_tiny_decoder(**parts), context=L)


def test_norms_in_places_that_no_layout_has_are_refused():
    site = partial(Site, smooth=Plain, norm=None)
    sites = {"attention": site(layer=FullAttention), "ffn": site(layer=SwiGLU, norm_after=RMSNorm)}
    shape = MEANS["shape"]
    net = Decoder(shape, vocab=61, block=partial(Block, sites=sites), norm=RMSNorm)
    with pytest.raises(ConfigError, match=r"block with these norms cannot be exported.*train with block=pre_norm, "):
        describe_decoder(net, context=L)
    sites = {name: site(layer=layer, norm=LayerNorm) for name, layer in (("attention", FullAttention), ("ffn", SwiGLU))}
    net = Decoder(shape, vocab=61, block=partial(Block, sites=sites), norm=RMSNorm)
    with pytest.raises(ConfigError, match=r"norms of different kinds \(norm\.eps: rms, norm before: layer\) cannot"):
        describe_decoder(net, context=L)
