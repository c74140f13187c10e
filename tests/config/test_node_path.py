"""The path in front of an error is that of the node that raised it, however deep it stands and however late."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aptlab.callbacks.stop import Stopped
from aptlab.config import build, check, compose, locate_error
from aptlab.config import node_path as paths
from aptlab.data.sources import TextFiles
from aptlab.data.store.writer import read_document_chunks
from aptlab.errors import AptlabError, ConfigError

ROPE = "aptlab.nn.positions.rope"


def train(*overrides: str) -> Any:
    return compose("train", ["size=debug", "vocab=61", *overrides]).cfg


def test_a_rule_inside_a_rule_has_its_own_path():
    words = ["rope=irope", f"rope.inner._target_={ROPE}.YaRN", "+rope.inner.beta_fast=0.5"]
    message = r"rope\.inner\.beta_fast=0\.5 must be larger than beta_slow=1\.0; published"
    with pytest.raises(ConfigError, match=rf"^the config has problems:\n{message}"):
        check(compose("train", words))
    with pytest.raises(ConfigError, match=rf"^{message}"):
        build(train(*words).task)


def test_a_rule_in_a_list_has_its_number():
    with pytest.raises(ConfigError, match=r"rope\.rules\.1\.beta_fast=0\.5 must be larger"):
        check(compose("train", ["rope=per_layer", f"rope.rules.1={{_target_:{ROPE}.YaRN,beta_fast:0.5}}"]))


def test_a_layer_that_the_model_builds_has_the_path_of_the_group():
    with pytest.raises(ConfigError, match=r"^attention\.bias='some'; allowed: true, false, qkv"):
        build(train("attention.bias=some").task)
    with pytest.raises(ConfigError, match=r"^smooth\.gate\.bound=0\.4 must be larger than tau=0\.5"):
        build(train("smooth=left_spin", "smooth.gate.kind=softclip", "smooth.gate.bound=0.4").task)


def declare_teacher() -> None:
    """A group of one's own, whose parts are networks."""
    Path("conf").mkdir()
    Path("conf/groups.yaml").write_text("teacher: torch.nn.Module\n")


def test_a_plain_node_has_the_path_that_it_is_given():
    declare_teacher()
    model = compose("train", ["size=debug", "vocab=61", "attention.bias=some"]).resolved()["model"]
    with pytest.raises(ConfigError, match=r"^block\.sites\.attention\.layer\.bias='some'"):
        build(model)
    with pytest.raises(ConfigError, match=r"^teacher\.block\.sites\.attention\.layer\.bias='some'"):
        build(model, "teacher")


def test_two_models_of_one_config_have_two_paths():
    declare_teacher()
    config = compose("train", ["size=debug", "vocab=61"])
    plain = config.resolved()["model"]
    wrong = {**plain["positions"], "rope": {"_target_": f"{ROPE}.YaRN", "beta_fast": 0.5}}
    config = config.replaced({"teacher": {**plain, "positions": wrong}})
    build(config.cfg.model)
    with pytest.raises(ConfigError, match=r"^teacher\.positions\.rope\.beta_fast=0\.5 must be larger"):
        build(config.cfg.teacher)


def test_what_a_parent_hands_over_is_no_key():
    with pytest.raises(ConfigError, match=r"^embed: dim=33 is odd, and sinusoidal positions need pairs; use dim=34"):
        build(train("embed=sinusoidal").embed)(33)
    with pytest.raises(ConfigError, match=r"^embed\.base=1\.0 must be larger than 1"):
        build(train("embed=sinusoidal", "embed.base=1.0").embed)(32)


def test_a_rule_that_raises_while_the_model_is_built_is_named_and_not_the_model():
    with pytest.raises(ConfigError, match=r"^rope\.fraction=0\.1 of head_dim=16 is 1 dims"):
        build(train("rope=partial", "rope.fraction=0.1").task)
    with pytest.raises(ConfigError, match=r"^rope: head_dim=12 is not divisible by 8"):
        build(train("rope=kron3d", "size.head_dim=12").task)


def test_another_error_of_a_late_factory_has_its_path_too():
    factory = build({"_target_": "torch.nn.LayerNorm", "_partial_": True, "bias": False}, "norm")
    with pytest.raises(ConfigError, match=r"^norm: TypeError: .*normalized_shape") as caught:
        factory()
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_component_that_raises_long_after_it_was_built_gets_its_path_at_the_door():
    source = build(train("source=text", "source.files='none*.txt'").source)
    with pytest.raises(AptlabError, match=r"^files=none\*\.txt matches no file") as caught:
        list(source.documents())
    assert str(locate_error(caught.value)).startswith("data.files=none*.txt matches no file")
    assert caught.value.__class__ is locate_error(caught.value).__class__


def test_what_a_component_logs_says_whole_keys(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    data = build(train("source=text", f"source.files={tmp_path}/a.txt").source)
    with caplog.at_level("WARNING", "aptlab"):
        list(read_document_chunks(data))
        log = logging.getLogger("aptlab")
        log.warning("of nobody: set newlines=%s to go on", "unix")
        log.warning("of one that nobody built: set newlines=%s", "unix", extra={"component": TextFiles("a.txt")})
        log.warning("of another parameter: set field=%s, set other=1", "x", extra={"component": data})
    first, second, third, fourth = (record.getMessage() for record in caplog.records)
    assert first.endswith("which become tokens; set source.newlines=unix to read them as \\n")
    assert second == "of nobody: set newlines=unix to go on"
    assert third == "of one that nobody built: set newlines=unix"
    assert fourth == "of another parameter: set source.field=x, set other=1"


def test_an_error_that_names_no_parameter_of_the_component_stays():
    speaker = Speaker(build({"_target_": f"{ROPE}.Standard"}, "rope"))
    paths.remember_path(speaker, paths.NodePath("rope"))
    for text, shown in (
        ("the disk is full", "the disk is full"),
        ("rule is of the wrong kind", "rope.rule is of the wrong kind"),
    ):
        with pytest.raises(ConfigError) as caught:
            speaker.speak(text)
        assert str(locate_error(caught.value)) == shown


@dataclass(frozen=True)
class Speaker:
    """Raises late."""

    rule: Any

    def speak(self, text: str) -> None:
        raise ConfigError(text)


def test_a_path_is_forgotten_with_its_component():
    rule = build({"_target_": f"{ROPE}.Standard"}, "rope")
    assert id(rule) in paths._BUILT
    number = id(rule)
    del rule
    gc.collect()
    assert number not in paths._BUILT


def test_an_error_keeps_what_it_carries():
    stopped = paths.add_path(Stopped("told", exit_code=130), paths.NodePath("callbacks.stop"), ())
    assert (str(stopped), stopped.exit_code, stopped.located) == ("callbacks.stop: told", 130, True)
    assert paths.add_path(stopped, paths.NodePath("trainer"), ()) is stopped


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("task.net.rope.factor", "rope.factor"),
        ("task.net.depth", "model.depth"),
        ("data.context", "context"),
        ("list.1.base", "rope.base"),
        ("env.x", "env.x"),
        ("loop.x", "loop.x"),
        ("nowhere", "nowhere"),
    ],
)
def test_slots_lead_to_the_key_that_a_user_sets(path, key):
    tree = {
        "task": {"net": "${model}"},
        "model": {"rope": "${rope}", "depth": 2},
        "rope": {"factor": 4},
        "data": {"context": "${context}"},
        "list": [1, "${rope}"],
        "env": "${oc.env:HOME}",
        "loop": "${loop}",
    }
    assert paths.follow_slots(tree, path) == key
