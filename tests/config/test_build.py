from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from aptlab.config import build, compose, redact_overrides, redact_text, redact_value
from aptlab.config.trust import list_trusted_prefixes
from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.positions.rope import Standard, YaRN

ROPE = "aptlab.nn.positions.rope"

REFUSED = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.getattr",
    "torch.load",
    "torch.hub.load",
    "pathlib.Path.unlink",
    "functools.partial",
    "numpy.load",
    "hydra.utils.instantiate",
    "torch.nn.modules.module.torch.load",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.OrderedDict",
    "torch.optim.lr_scheduler.partial",
    "torch.nn.Module.__init__",
    "torch.nn",
    "aptlab.nn.norm.torch.hub.load",
    "aptlab.nn.positions.rope.base.math.log",
    "aptlab.cli.main",
    "aptlab.cli.sys.exit",
    "aptlab.config.build",
    "aptlab.config.building.build",
    "aptlab.runs.folder.RunFolder",
    "aptlab.errors.suggest_option",
    "aptlab.nn.attention.cache.KVCache.empty",
    "aptlab.nn.positions.rope.base.dataclass",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.trainer.trainer.os.system",
    "aptlabx.Thing",
    "torch.nnx.Thing",
    "rope",
    "aptlab..nn",
    "",
]


@pytest.mark.parametrize("target", REFUSED)
def test_a_target_outside_the_trust_list_is_refused(target):
    with pytest.raises(ConfigError, match=r"_target_ .*(not trusted|no component|not a class|not a dotted name)"):
        build({"_target_": target})


@pytest.mark.parametrize("target", [["os", "system"], 3, None, {"a": 1}, print])
def test_a_target_that_is_no_string_is_refused(target):
    with pytest.raises(ConfigError, match="_target_ must be a dotted name"):
        build({"_target_": target})


@pytest.mark.parametrize(
    ("node", "path"),
    [
        (
            {"_target_": "aptlab.nn.block.Block", "_partial_": True, "_args_": [{"_target_": "os.system"}]},
            "_args_.0",
        ),
        ({"_target_": "aptlab.nn.positions.rope.Standard", "base": {"x": [{"_target_": "os.system"}]}}, "base.x.0"),
        (
            {"_target_": "aptlab.nn.positions.rope.Standard", "_recursive_": False, "base": {"_target_": "os.system"}},
            "base",
        ),
    ],
)
def test_a_nested_target_is_refused_before_anything_is_made(node, path):
    with pytest.raises(ConfigError, match=re.escape(f"{path}: _target_ os.system is not trusted")):
        build(node)


def test_trust_is_given_by_name(monkeypatch):
    timed = {"_target_": "lightning.pytorch.callbacks.BackboneFinetuning", "verbose": True}
    with pytest.raises(ConfigError, match=r"BackboneFinetuning is not trusted; .* APTLAB_TRUST; .*EarlyStopping.* may"):
        build(timed, "callbacks.timed")
    monkeypatch.setenv("APTLAB_TRUST", "decimal, lightning.pytorch.callbacks.")
    assert build(timed, "callbacks.timed").verbose
    assert list_trusted_prefixes()[-2:] == ("decimal", "lightning.pytorch.callbacks")


def test_a_class_of_a_trusted_package_must_be_of_a_kind(monkeypatch):
    monkeypatch.setenv("APTLAB_TRUST", "decimal, fractions.")
    for path in ("", "rope", "callbacks.x"):
        with pytest.raises(ConfigError, match=r"fractions\.Fraction is no (component|whole)"):
            build({"_target_": "fractions.Fraction", "numerator": 3}, path)


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match=r"rope: .*aptlab\.nn\.positions\.rope has no Yarn; did you mean YaRN"):
        build({"_target_": "aptlab.nn.positions.rope.Yarn"}, "rope")


def test_a_node_becomes_an_object_and_a_partial_a_factory():
    assert build({"_target_": "aptlab.nn.positions.rope.Standard", "base": 5}) == Standard(base=5)
    factory = build({"_target_": "aptlab.nn.positions.rope.Standard", "_partial_": True})
    assert isinstance(factory, functools.partial)
    assert factory(base=7) == Standard(base=7)
    assert build({"_target_": "aptlab.nn.positions.rope.Standard", "_partial_": True}, base=8)() == Standard(base=8)


def test_arguments_arrive_uncopied():
    import torch

    table = torch.nn.Parameter(torch.ones(3, 2))
    built = build({"_target_": "torch.nn.Embedding", "_partial_": True}, "model")
    assert built(3, 2, _weight=table).weight.data_ptr() == table.data_ptr()
    rule = YaRN()
    assert build({"_target_": "aptlab.nn.positions.rope.IRope"}, inner=rule).inner is rule


def test_a_node_of_a_config_and_its_interpolations_are_built():
    config = compose("train", ["rope=yarn", "context=64"])
    assert build(config.cfg.rope) == YaRN(original_len=64)


def test_an_error_of_a_component_keeps_its_kind_and_gets_the_path():
    config = compose("train", ["rope=yarn", "rope.factor=0.5"])
    with pytest.raises(ConfigError, match=r"^rope\.factor must be a finite number >= 1, got 0\.5"):
        build(config.cfg.rope)
    Path("conf").mkdir()
    Path("conf/groups.yaml").write_text("net: torch.nn.Module\nnet.*: aptlab.nn.positions.rope.Rope\n")
    with pytest.raises(AptlabError, match=r"^net\.rope\.factor must be") as caught:
        build({"_target_": f"{ROPE}.YaRN", "factor": 0.5}, "net.rope")
    assert isinstance(caught.value.__cause__, ConfigError)


def test_another_error_becomes_a_config_error_with_its_cause():
    with pytest.raises(ConfigError, match=r"norm: TypeError: .*normalized_shape") as caught:
        build({"_target_": "torch.nn.LayerNorm"}, "norm")
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_node_without_target_is_an_error():
    with pytest.raises(ConfigError, match="there is no _target_, so nothing can be built from"):
        build({"a": 1})
    with pytest.raises(ConfigError, match="paths: there is no _target_"):
        build(compose("train", []).cfg.paths)


def test_an_interpolation_of_a_stored_config_reads_no_environment():
    with pytest.raises(ConfigError, match=r"an interpolation .* is left"):
        build({"_target_": "aptlab.nn.positions.rope.Standard", "base": "${oc.env:HOME}"})


def test_secrets_are_hidden():
    hidden = redact_value({"api_key": "abc", "tokenizer": {"tokens": 5}, "logger": {"password": "x"}})
    assert hidden == {"api_key": "***", "tokenizer": {"tokens": 5}, "logger": {"password": "***"}}
    assert redact_overrides(["logger.api_key=abc", "seed=1"]) == ["logger.api_key=***", "seed=1"]
    assert "hunter22" not in redact_text("password=hunter22")
