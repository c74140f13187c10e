"""Rope keys of config.json files, in every form and with every slip, against what transformers makes of the same file.

Law: what we read has transformers' frequencies and factor; what we refuse, transformers fails on too, or it is told why
it means nothing; a key that is not used is named. Files are drawn from seeds.
"""

from __future__ import annotations

import copy
import functools
import random

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.models.hf import read_attention
from tests.models.hf.making import transformers

L, DIM = 16, 16
SHORT, LONG = [1.0 + 0.05 * i for i in range(8)], [1.5 + 0.3 * i for i in range(8)]
SIZES = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"head_dim": DIM, "max_position_embeddings": 4 * L, "vocab_size": 61, "intermediate_size": 48}
NAMES = "llama qwen3 smollm3 phi3 gemma3_text llama4_text gpt_oss olmo2 olmo3 gpt_neox cohere cohere2 stablelm phi glm4"
NAMES += " granite ernie4_5 ministral3 hunyuan_v1_dense"
LAYERED = ("gemma3_text", "olmo3")  # a rope for each kind of layer
MORE_KEYS = {"phi3": {"pad_token_id": None}, "gemma3_text": {"sliding_window": 5}, "olmo3": {"sliding_window": 5}}
MORE_KEYS |= {"llama4_text": {"moe_layers": []}}
ORIGINAL = "original_max_position_embeddings"
KEYS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, ORIGINAL: L},
    "llama3": {"factor": 4.0, ORIGINAL: L, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {"short_factor": SHORT, "long_factor": LONG, ORIGINAL: L},
    "proportional": {"partial_rotary_factor": 0.5},
}
MORE = {
    "yarn": {"attention_factor": 1.3, "beta_fast": 4.0, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5}
    | {"truncate": False},
    "longrope": {"factor": 4.0, "attention_factor": 1.1},
    "proportional": {"factor": 2.0},
}
EVERY = {key: value for own in (*KEYS.values(), *MORE.values()) for key, value in own.items()}
NAMED = (*EVERY, "rope_type", "rope_theta", "rope_scaling", "rope_parameters", "divisors", "fraction")
COUNT = 1000
WRONG = (None, True, "4", 0.5, 0, [1.0])


def make_form(rng):
    """The keys of one form: a type, some of its keys, some of another type's, some of the wrong type."""
    kind = rng.choice([*KEYS, "yarn", "su", "yran"])
    own = KEYS.get("longrope" if kind == "su" else kind, {})
    form = {} if rng.random() < 0.1 else {rng.choice(["rope_type", "rope_type", "type"]): kind}
    form |= own | {key: value for key, value in MORE.get(kind, {}).items() if rng.random() < 0.3}
    for slip in rng.sample(["absent", "other", "wrong", "theta", "type"], rng.randrange(3)):
        if slip == "absent" and own:
            form.pop(rng.choice(list(own)), None)
        elif slip == "other":
            key = rng.choice([key for key in EVERY if key != "partial_rotary_factor"])
            form[key] = EVERY[key]
        elif slip == "wrong" and form:
            form[rng.choice(list(form))] = rng.choice(WRONG)
        elif slip == "theta":
            form["rope_theta"] = rng.choice([100.0, 100, 500.0, None, True, "100"])
        elif slip == "type":
            form["type"] = rng.choice(list(KEYS))
    return form


def make_file(seed):
    """A config.json of one family with today's form, the older one, or both."""
    rng = random.Random(seed)
    family = rng.choice(NAMES.split())
    config = {"model_type": family, **SIZES, **MORE_KEYS.get(family, {})}
    places = rng.choice(["old", "new", "new", "both", "both", "none"])
    one = make_form(rng)
    other = one if rng.random() < 0.5 else make_form(rng)
    if places in ("old", "both"):
        config["rope_scaling"] = rng.choice([one, one, one, one, None, {}])
    if places in ("new", "both"):
        layered = family in LAYERED and rng.random() < 0.8
        config["rope_parameters"] = {"full_attention": other} if layered else other
        if layered and rng.random() < 0.5:
            config["rope_parameters"]["sliding_attention"] = {"rope_type": "default", "rope_theta": 50.0}
    if rng.random() < 0.5:
        config["rope_theta"] = rng.choice([100.0, *[200.0] * 10, None])
    if rng.random() < 0.25:
        config[ORIGINAL] = rng.choice([L, 2 * L])
    return copy.deepcopy(config)


@functools.cache
def rotary_class(family):
    """The class that computes frequencies: the one of the family's module that is not for pictures."""
    room = family.removesuffix("_text")
    module = vars(getattr(getattr(transformers().models, room), f"modeling_{room}"))
    return next(kind for name, kind in module.items() if name.endswith("RotaryEmbedding") and "Vision" not in name)


def read_theirs(config):
    """Per kind of layer (frequencies of L tokens, of 4 L tokens, factor) by transformers; None where it fails."""
    kind = config["model_type"]
    try:
        made = transformers().models.auto.configuration_auto.CONFIG_MAPPING[kind].from_dict(copy.deepcopy(config))
        rotary = rotary_class(kind)(made)
        found = {}
        for layers in sorted(set(made.layer_types)) if kind in LAYERED else [None]:
            prefix, more = ("", ()) if layers is None else (f"{layers}_", (layers,))
            both = []
            for length in (L, 4 * L):
                rotary(torch.zeros(1, length, 4), torch.arange(length)[None], *more)
                both.append(getattr(rotary, f"{prefix}inv_freq").double())
            factor = torch.tensor(float(getattr(rotary, f"{prefix}attention_scaling")))
            if not all(torch.isfinite(one).all() for one in (*both, factor)):
                return None
            found[layers] = (*both, factor.item())
    except Exception:
        return None
    return found


def read_ours(config):
    """The same of our rules, and the lines for the user. Raises ConfigError."""
    parts = read_attention(copy.deepcopy(config))
    layers = {"sliding_attention": 0, "full_attention": 5} if config["model_type"] == "gemma3_text" else {None: 0}
    layers = layers if config["model_type"] != "olmo3" else {"sliding_attention": 0, "full_attention": 3}
    found = {}
    for kind, layer in layers.items():
        rule = parts.rope.for_layer(layer).rule
        both = [torch.tensor(rule.frequencies_at(length, DIM), dtype=torch.float64) for length in (L, 4 * L)]
        found[kind] = (*both, rule.temperature**0.5)
    return found, parts.notes


def differs(mine, theirs):
    return any(
        one.shape != other.shape or ((one - other).abs() > 1e-5 * other.abs()).any()
        for one, other in zip(mine[:2], theirs[:2], strict=True)
    ) or mine[2] != pytest.approx(theirs[2], rel=1e-6)


def list_unused(config):
    """Keys of the form that counts which no rule of its type has; Gemma mixes forms, and is left out."""
    form = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if config["model_type"] in LAYERED:
        return []
    kind = form.get("rope_type", form.get("type", "default"))
    kind = "longrope" if config["model_type"] == "phi3" and kind in ("su", "yarn") else kind
    own = {*KEYS[kind], *MORE.get(kind, {}), "rope_type", "type", "rope_theta", "partial_rotary_factor"}
    own |= {ORIGINAL} if kind == "linear" else set()  # ours alone, where a published file gives it
    return [key for key, value in form.items() if value is not None and key not in own]


def judge(config):
    """What is wrong with our reading of a file, or None; and whether it was read."""
    try:
        mine, notes = read_ours(config)
    except ConfigError as error:
        return (None if any(key in str(error) for key in NAMED) else f"the message names no key: {error}"), False
    theirs = read_theirs(config)
    if theirs is None and config["model_type"] == "phi3" and "su" in str(config):
        return None, True  # transformers 4.57 reads it, 5.24 looks for the trained length under the new name alone
    if theirs is None:
        return f"transformers fails on this file, and we read {mine}", True
    silent = [key for key in list_unused(config) if not any(key in note for note in notes)]
    if silent:
        return f"{silent} change nothing, and no line says so", True
    wrong = [kind for kind, values in mine.items() if differs(values, theirs[kind])]
    return (f"{[(mine[kind], theirs[kind]) for kind in wrong]} {notes}" if wrong else None), True


def test_what_is_read_is_what_transformers_computes():
    found = {seed: judge(make_file(seed)) for seed in range(COUNT)}
    wrong = [f"{make_file(seed)}\n{problem}" for seed, (problem, _) in found.items() if problem]
    assert not wrong, f"{len(wrong)} of {COUNT}:\n" + "\n\n".join(wrong[:5])
    assert COUNT / 3 < sum(read for _, read in found.values()) < COUNT
