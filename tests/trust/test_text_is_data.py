"""Text that comes out of a file is never resolved, and comes back as it was."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from aptlab.checkpoint import load_checkpoint
from aptlab.cli import main
from aptlab.config import build, check, compose
from aptlab.config.escaped import escape_text, find_interpolations, is_pure, unescape_text
from aptlab.config.overrides import parse_overrides
from aptlab.config.sweeps import format_text
from aptlab.errors import ConfigError
from aptlab.restore.load import load_network
from aptlab.restore.request import fill_config
from aptlab.restore.upgrade import upgrade_config
from aptlab.runs import Run
from aptlab.training.plan import plan_training
from tests.commands.small_run import train
from tests.commands.test_plan import RUN, checkpoint
from tests.trust.hostile import FAKE, VARIABLE, doctor_checkpoint, set_value

READS = f"${{oc.env:{VARIABLE}}}"  # what would bring the key into a configuration
PIECES = ["\\", "$", "{", "}", "'", '"', ":", "a", "${", READS, ",", " ", "=", "[", "\n", "é", "("]
LINE = r"an interpolation \$\{\.\.\.\} is left in '.*', and nothing of a file is filled in"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FAKE)


def holds_key(folder: Path) -> list[str]:
    """Files below a folder that hold the key, in their names or in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if FAKE in str(path) or FAKE.encode() in path.read_bytes()]


def test_every_text_comes_back_through_a_configuration_and_an_override():
    chance = random.Random(0)
    config = compose("train", [])
    texts = [READS, "\\" + READS, *("".join(chance.choices(PIECES, k=7)) for _ in range(200))]
    assert config.replaced({"job": escape_text(READS)}).resolved()["job"] == READS
    for text in texts:
        assert unescape_text(escape_text(text)) == text
        assert not list(find_interpolations(escape_text(text)))
        items, problems = parse_overrides([format_text("job", text)])
        assert (problems, unescape_text(items[0].value)) == ([], text)


@pytest.mark.parametrize(
    ("text", "pure"),
    [
        ("${rope.base}", True),
        ("x ${oc.select:rope.original_len,null} y", True),
        ("\\" + READS, True),
        (READS, False),
        (f"${{oc.select:rope.base,{READS}}}", False),
        ("${${job}:HOME}", False),
        ("${now:%Y}", False),
        ("${hydra:runtime.cwd}", False),
    ],
)
def test_what_reads_more_than_the_configuration_is_known(text, pure):
    assert is_pure(text) is pure


@pytest.mark.parametrize(
    ("node", "path", "key"),
    [
        ({"_target_": "aptlab.data.sources.TextFiles", "files": [READS]}, "source", r"source\.files\.0"),
        ({"_target_": "aptlab.nn.positions.rope.Standard", "base": READS}, "", "base"),
    ],
)
def test_a_plain_node_is_refused_with_the_key_and_the_text(node, path, key):
    with pytest.raises(ConfigError, match=rf"^{key}: {LINE}"):
        build(node, path)
    escaped = {name: [escape_text(READS)] if name == "files" else value for name, value in node.items()}
    if "files" in node:
        assert build(escaped, path).files == [READS]


def test_an_interpolation_in_a_list_is_filled_in_and_a_wrong_one_is_named():
    check(compose("train", ["source=text", "source.files=['${job}.txt','${paths.root}/a']"]))
    with pytest.raises(ConfigError, match=r"data\.files: expects .*, got \['a', 0\]; files\.1 is \$\{seed\}"):
        check(compose("train", ["source=text", "source.files=[a,'${seed}']"]))


@pytest.mark.parametrize("key", ["source.files", "tokenizer.eos", "seed"])
def test_the_configuration_of_a_checkpoint_is_refused_where_a_request_takes_values_from_it(key):
    config = compose("eval", [])
    stored = compose("train", ["source=text", "source.files=a.txt", "tokenizer=file", "tokenizer.path=b"]).stored()
    set_value(stored, key, READS)
    stored["data"]["source"] = stored["source"]
    if key == "source.files":
        config = compose("eval", ["data=packed"])
    with pytest.raises(ConfigError, match=rf"^{key}: {LINE}"):
        fill_config(config, stored, ("context", "seed", "tokenizer"))


def test_an_older_configuration_is_not_resolved_on_its_way_to_todays_words():
    config = compose("train", ["size=debug"]).stored()
    config["rope"]["_target_"] = "aptlab.nn.rope.Standard"
    config["job"] = READS
    with pytest.raises(ConfigError, match=rf"^job: {LINE}"):
        upgrade_config(config)


@pytest.mark.parametrize("override", [f"job='{READS}'", f"rope.base='{READS}'", "seed='${${job}:HOME}'"])
def test_an_override_of_a_checkpoint_that_reads_the_environment_has_its_value_or_is_refused(override, monkeypatch):
    key = override.partition("=")[0]
    checkpoint("size=debug", "context=64")
    path = next(RUN.glob("checkpoints/*.json"))
    rewrite(path, overrides=["size=debug", "context=64", override])
    if key == "job":  # text, which the checkpoint's own configuration has
        assert plan_training(["ckpt=last"]).config.cfg.job == "train"
    else:
        with pytest.raises(ConfigError, match=rf"^{key}: the checkpoint has .* reads this machine's environment"):
            plan_training(["ckpt=last"])
        assert plan_training(["ckpt=last", f"{key}=3", "load=resume"] if key == "seed" else ["ckpt=last", f"{key}=3"])


def test_a_value_of_the_trained_rule_is_not_resolved():
    checkpoint("size=debug", "context=64", "rope=standard")
    path = next(RUN.glob("checkpoints/*.json"))
    rewrite(path, config=lambda config: set_value(config, "rope.layout", READS))
    with pytest.raises(ConfigError, match=rf"^rope\.layout: {LINE}"):
        plan_training(["ckpt=last", "rope=yarn"])


def test_values_of_an_option_that_is_gone_are_not_resolved():
    Path("conf/rope").mkdir(parents=True)
    option = Path("conf/rope/mine.yaml")
    option.write_text("# Mine.\n_target_: aptlab.nn.positions.rope.Standard\nbase: 5.0\n")
    checkpoint("size=debug", "context=64", "rope=mine")
    rewrite(next(RUN.glob("checkpoints/*.json")), config=lambda config: set_value(config, "rope.base", READS))
    option.unlink()
    with pytest.raises(ConfigError, match=rf"^rope\.base: {LINE}"):
        plan_training(["ckpt=last"])


def test_a_folder_that_is_called_like_an_interpolation_is_resumed_by_its_name():
    run = Path(f"outputs/run-{READS}")
    checkpoint("size=debug", "context=64", run=run)
    made = plan_training(["ckpt=outputs"])
    assert Path(made.config.cfg.run_dir) == run
    assert FAKE not in str(made.config.resolved())


def rewrite(path: Path, overrides: list[str] | None = None, config: Any = None) -> None:
    """Change a manifest as somebody who sends a checkpoint can: its own checksum is that of the new text."""
    import dataclasses

    from aptlab.checkpoint.manifest import Manifest

    manifest = Manifest.parse(path.read_text())
    if config is not None:
        config(manifest.config)
    path.write_text(dataclasses.replace(manifest, overrides=overrides or manifest.overrides).text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        return Run.read(train("evals=none").path.absolute())


def test_a_checkpoint_with_an_interpolation_in_its_configuration_is_refused_in_one_line(trained, tmp_path):
    path = doctor_checkpoint(
        trained, tmp_path / "sent", lambda entry: set_value(entry["config"], "model.head.scale", READS)
    )
    with pytest.raises(ConfigError, match=rf"^model\.head\.scale: {LINE}"):
        load_network(path)


@pytest.mark.slow
def test_a_special_token_that_is_an_interpolation_stays_a_token(trained, tmp_path, monkeypatch):
    assert main(["export", f"ckpt={trained.path}", f"out={tmp_path / 'hf'}"]) == 0
    name_end_token(tmp_path / "hf", READS)
    imported = tmp_path / "imported"
    assert main(["import", f"path={tmp_path / 'hf'}", f"out={imported}"]) == 0
    entry = load_checkpoint(next(imported.glob("checkpoints/*.ckpt")))["aptlab"]
    assert entry["config"]["tokenizer"]["eos"] == escape_text(READS)
    assert json.loads(entry["tokenizer"]["json"])["added_tokens"][-1]["content"] == READS
    text = f"data.files={trained.path.parents[3]}/texts.jsonl"
    words = [
        text,
        "evals=none",
        "trainer.max_steps=1",
        "data.batch=2",
        "data.val_batches=1",
        "context=32",
        "logger=csv",
    ]
    run = tmp_path / "run"
    assert main(["train", f"ckpt={imported}", f"run_dir={run}", "device=cpu", "logger=csv", *words]) == 0
    assert main(["train", f"ckpt={run}", "trainer.max_steps=2", "load=resume"]) == 0
    assert main(["eval", f"ckpt={run}", "multiples=[1]", "tokens=64", "device=cpu", text]) == 0
    again = load_checkpoint(max(run.glob("checkpoints/*.ckpt")))["aptlab"]
    assert again["config"]["tokenizer"]["eos"] == escape_text(READS)
    assert main(["export", f"ckpt={run}", f"out={tmp_path / 'again'}"]) == 0
    told = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    assert READS in [token["content"] for token in told["added_tokens"]]
    assert holds_key(tmp_path) == []


def name_end_token(folder: Path, text: str) -> None:
    """Give the end token of an exported tokenizer another text, in every file that names it."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    old = tokenizer["added_tokens"][-1]["content"]
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace(json.dumps(old), json.dumps(text)))
