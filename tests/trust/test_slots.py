"""A configuration names, in every place, only a class of the kind that belongs there, wherever it came from."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import aptlab
from aptlab.cli import main
from aptlab.config import build, check, compose
from aptlab.config.bases import read_group_bases
from aptlab.config.listed import BROAD, LISTED
from aptlab.config.slots import MACHINE, Slot, find_kind_problem, read_parameters
from aptlab.errors import ConfigError
from aptlab.runs import Run
from tests.commands.small_run import train, words
from tests.trust.hostile import doctor_checkpoint, left_marks, set_value, touch_marker

ROOT = Path(__file__).parents[2]
PACKAGE = Path(aptlab.__file__).parent  # as it is installed, which need not be where the sources are
BASES = read_group_bases()
# Kind -> the classes of the package that are of it, and nothing else of the package is accepted anywhere.
ROPES = (
    "Axial2D Axial3D Dynamic FourBaseRope GrowingQueries IRope IRopeHeads IRopeLayers IRopePairs IRopePhase Kron2D "
    "Kron3D Learnable Linear LinearHarmonic Llama3 LongRoPE LongRoPE2 MRope MRopeInterleaved Mixed2D NTK NTKByParts "
    "NTKLiu NoRope Partial PerLayer Proportional Standard XPos XPosAngleDecay YaRN YaRNUniform YaRNZones"
)
MEMORIES = "InfiniMemory KNNMemory NoMemory SegmentMemory TitansContextMemory TitansGateMemory XLMemory"
KINDS = {
    "AddedPositions": "LearnedPositions NoEmbed SinusoidalPositions",
    "Attention": "AutopoieticAttention CrossAttention FullAttention InfiniMemory KNNMemory LinearAttention NoMemory "
    "SegmentMemory TitansContextMemory TitansGateMemory XLMemory",
    "Block": "Block",
    "BranchScale": "DepthDecay LayerScale PostNorm ReZero ResidualScale",
    "Callback": "AGC AdaGC BalancedTuning Checkpoints Consolidation CurriculumOrder FinalLoss GracefulStop "
    "LowRankGradients MixedShares Monitor NonFiniteGuard QKClip ReplayMemory RoundedSteps SameConfig SmoothMemory "
    "StabilityProbe StatelessSeed StressCallback TaskGrowth TaskScores TrainProgress Watchdog ZClip",
    "CompetenceGate": "CompetenceGate",
    "Curriculum": "Campus RandomOrder SortedOrder Stages",
    "Decoder": "Decoder",
    "Device": "Auto Cpu Cuda DDP",
    "DifficultyMetric": "CompressionRatio MTLD ModelLoss TokenCount UnigramNLL",
    "Embedding": "ScaledEmbedding",
    "EncoderDecoder": "EncoderDecoder",
    "Eval": "DocumentLoss Harness LengthLoss NeedleRetrieval PasskeyRetrieval Ruler Seq2SeqScores SlidingLoss "
    "TaskMatrix TextSample WidthLoss",
    "FeedForward": "ClampedSwiGLU GELU GeGLU SwiGLU",
    "Gate": "Gate",
    "Growth": "Growth",
    "HeadRule": "HeadRule",
    "ImageTransform": "PermutePixels RotateImages",
    "Images": "Digits",
    "Inputs": "PatchEmbedding TokenInputs",
    "LabelledTexts": "LabelledFiles SourceTexts",
    "Launcher": "JoblibLauncher ProcessLauncher SubmititLauncher",
    "Layer": "AutopoieticAttention ClampedSwiGLU CrossAttention FullAttention GELU GeGLU InfiniMemory KNNMemory "
    "LinearAttention NoMemory SegmentMemory SwiGLU TitansContextMemory TitansGateMemory XLMemory",
    "LayerPositions": "LayerPositions",
    "LightningDataModule": "ImageTasks LabelledTextTasks PairData TextData TextTasks",
    "LogitRule": "LogitRule",
    "MatFormer": "MatFormer",
    "Memory": MEMORIES,
    "Module": "Classifier Decoder DyTox DyToxSeed EncoderDecoder",
    "Norm": "LayerNorm RMSNorm",
    "Objective": "CrossEntropy DarkExperience DyToxLoss Elastic ElasticWeights LearningWithoutForgetting NextToken",
    "Optim": "AdamW AdamW8bit",
    "Pacing": "BabySteps CampusPacing LinearPacing SqrtPacing",
    "PairSource": "PairFiles RandomPairs TextPairs",
    "Policy": "Balanced Herding Reservoir Ring",
    "PositionBias": "ALiBi CoPE Kerple LearnedBias NoBias PositionBias T5Bias",
    "Positions": "Positions",
    "QKNorm": "QKNorm",
    "Replay": "NoReplay Rehearsal",
    "Rope": ROPES,
    "RowClassifier": "Classifier DyTox DyToxSeed",
    "RowKind": "Mixed Packed Segments SpanCorruption",
    "Scenario": "ClassIncremental ClassIncrementalTexts DomainIncremental Domains NoScenario",
    "Schedule": "Cosine WSD",
    "SearchSettings": "SearchSettings",
    "Shape": "Shape",
    "ShareSchedule": "BalancedShare ConstantShare",
    "Site": "Site",
    "SkeletonRule": "SkeletonRule",
    "SkeletonTexts": "SkeletonTexts",
    "SketchRule": "SketchRule",
    "SlidingWindow": "SlidingWindow",
    "Smooth": (
        "DeepNorm DepthDecay LayerScale LeftSpin LeftSpinSeed MemorySmooth Plain PostNorm ReZero ResidualScale "
        "ScaledBranch"
    ),
    "Source": "Hub Installed Joined PairFiles RandomPairs Stdlib TextFiles TextPairs",
    "Split": "Split",
    "Strength": "Strength",
    "SweepRule": "Grid OptunaSearch",
    "Task": "ClassificationTask LanguageTask Seq2SeqTask",
    "TokenizerRule": "BPE ByteTokenizer TokenizerFile",
    "TokenizerRule Tokenizer": "BPE ByteTokenizer JsonTokenizer TokenizerFile",
    "Tracking": "Tracking",
    "Trainer": "",
    "Validation": "Validation",
    "WidthStrategy": "MeanWidths SampleWidth SandwichWidths SumWidths",
}
# Places below the groups that take a component, by the kind that belongs there.
PARAMETERS = {
    "AddedPositions": "Positions.embed",
    "Attention": "AutopoieticAttention.inner InfiniMemory.attention KNNMemory.attention NoMemory.attention "
    "SegmentMemory.attention TitansContextMemory.attention TitansGateMemory.attention XLMemory.attention",
    "Block": "Classifier.block Decoder.block DyTox.block DyToxSeed.block EncoderDecoder.decoder EncoderDecoder.encoder",
    "BranchScale": "ScaledBranch.scale",
    "CompetenceGate": "Stages.gate",
    "Curriculum": "CurriculumOrder.rule",
    "Decoder": "LanguageTask.net",
    "DifficultyMetric": "Campus.metrics SortedOrder.metric Stages.metric",
    "Embedding": "Decoder.embedding EncoderDecoder.embedding",
    "EncoderDecoder": "Seq2SeqTask.net",
    "FeedForward": "DyTox.ffn",
    "Gate": "LeftSpin.gate MemorySmooth.gate",
    "Growth": "GrowingQueries.growth IRope.growth LayerPositions.growth",
    "HeadRule": "Decoder.head EncoderDecoder.head",
    "ImageTransform": "DomainIncremental.transform",
    "Images": "ClassIncremental.images DomainIncremental.images",
    "Inputs": "Classifier.inputs DyTox.inputs DyToxSeed.inputs",
    "LabelledTexts": "ClassIncrementalTexts.texts",
    "Layer": "Site.layer",
    "LayerPositions": "Block.positions",
    "LogitRule": "CrossAttention.logits FullAttention.logits",
    "MatFormer": "ClampedSwiGLU.nested GELU.nested GeGLU.nested SwiGLU.nested",
    "Memory": "Site.memory",
    "Norm": "Block.norm Classifier.norm Decoder.norm DyTox.norm DyToxSeed.norm EncoderDecoder.norm Site.norm "
    "Site.norm_after Site.norm_joined",
    "Objective": "ClassificationTask.objective DarkExperience.base Elastic.loss ElasticWeights.base "
    "LanguageTask.objective LearningWithoutForgetting.base Seq2SeqTask.objective",
    "Optim": "ClassificationTask.optim LanguageTask.optim Seq2SeqTask.optim",
    "Pacing": "Campus.pacing",
    "PairSource": "PairData.source",
    "Policy": "Rehearsal.policy",
    "PositionBias": "Positions.bias",
    "Positions": "Classifier.positions Decoder.positions DyTox.positions DyToxSeed.positions EncoderDecoder.positions",
    "QKNorm": "CrossAttention.qk_norm FullAttention.qk_norm",
    "Replay": "ReplayMemory.rule",
    "Rope": "GrowingQueries.inner IRope.inner PerLayer.rules Positions.rope",
    "RowClassifier": "ClassificationTask.net",
    "RowKind": "TextData.rows",
    "Scenario": "ImageTasks.scenario LabelledTextTasks.scenario TextTasks.scenario",
    "Schedule": "ClassificationTask.schedule LanguageTask.schedule Seq2SeqTask.schedule",
    "Shape": "AutopoieticAttention.shape Block.shape ClampedSwiGLU.shape Classifier.shape CrossAttention.shape "
    "Decoder.shape DyTox.shape DyToxSeed.shape EncoderDecoder.shape FullAttention.shape GELU.shape GeGLU.shape "
    "InfiniMemory.shape KNNMemory.shape LinearAttention.shape NoMemory.shape SegmentMemory.shape "
    "SwiGLU.shape TitansContextMemory.shape TitansGateMemory.shape XLMemory.shape",
    "ShareSchedule": "Rehearsal.schedule",
    "Site": "Block.sites",
    "SkeletonTexts": "SkeletonRule.texts",
    "SketchRule": "MemorySmooth.sketch",
    "SlidingWindow": "FullAttention.window",
    "Smooth": "ScaledBranch.join Site.smooth",
    "Source": "Domains.sources Joined.sources SourceTexts.sources TextData.source TextPairs.texts",
    "Split": "PairData.split TextData.split TextTasks.split",
    "Strength": "LeftSpin.strength MemorySmooth.strength",
    "TokenizerRule Tokenizer": "LabelledTextTasks.tokenizer PairData.tokenizer TextData.tokenizer TextTasks.tokenizer",
    "WidthStrategy": "Elastic.strategy",
}
TOO_MUCH = ("ModelCheckpoint", "OnExceptionCheckpoint", "LambdaCallback", "BackboneFinetuning", "LearningRateFinder")


def list_classes() -> Iterator[str]:
    """Every class of the package by the module that defines it, nothing imported."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("aptlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        body = ast.parse(path.read_text(encoding="utf-8")).body
        yield from (f"{module}.{node.name}" for node in body if isinstance(node, ast.ClassDef))


def shorten(names: Any) -> str:
    return " ".join(sorted(name.rpartition(".")[2] for name in names))


@pytest.mark.slow
def test_every_class_of_the_package_is_accepted_where_it_belongs_and_nowhere_else():
    classes = list(list_classes())
    assert len(classes) > 400
    slots = {path: Slot.at(path.replace("*", "part"), BASES) for path in BASES}
    accepted: dict[str, str] = {}
    places: dict[str, set[str]] = {}
    waiting, done = list(slots.values()), set()
    while waiting:
        slot = waiting.pop()
        kind = " ".join(name.rpartition(".")[2] for name in slot.kinds)
        found = [name for name in classes if find_kind_problem(name, slot) is None]
        assert accepted.setdefault(kind, shorten(found)) == shorten(found)
        for owner in set(found) - done:
            done.add(owner)
            for name in read_parameters(owner):
                place = Slot("x", BASES).parameter(name, owner)
                for inner in (place, place.item(0)):
                    if inner.kinds:
                        waiting.append(inner)
                        word = " ".join(part.rpartition(".")[2] for part in inner.kinds)
                        places.setdefault(word, set()).add(f"{owner.rpartition('.')[2]}.{name}")
    assert accepted == KINDS
    assert {kind: " ".join(sorted(names)) for kind, names in places.items()} == PARAMETERS
    free = Slot("", BASES)
    alone = {name.rpartition(".")[2] for name in classes if find_kind_problem(name, free) is None}
    machine = {"Device", "Launcher", "Tracking", "SweepRule", "Trainer"}
    groups = {BASES[path].rpartition(".")[2] for path in BASES} - machine
    assert alone == {name for kind in groups for name in KINDS[kind].split()}
    assert not alone & {name for kind in machine for name in KINDS[kind].split()}


def test_every_group_has_a_kind_and_those_of_the_machine_are_known():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    named = {path.partition(".")[0] for path in BASES}
    assert groups - named == {"paths", "recipe"}  # of plain values alone
    assert set(MACHINE) <= groups


def test_what_is_listed_of_others_is_there_and_of_its_kind():
    from aptlab.config.trust import import_placed_target, list_trusted_prefixes

    for kind, names in LISTED.items():
        for name in names:
            slot = Slot("x", BASES, base=kind)
            assert import_placed_target(name, slot, list_trusted_prefixes()).__name__ == name.rpartition(".")[2]
    assert not any(word in name for names in LISTED.values() for name in names for word in ("Logger", *TOO_MUCH))
    assert set(BROAD) <= LISTED.keys()


@pytest.mark.parametrize("name", [*(f"callbacks.{name}" for name in TOO_MUCH), "loggers.CSVLogger"])
def test_a_class_of_lightning_that_opens_files_or_more_is_refused(name):
    target = f"lightning.pytorch.{name}"
    with pytest.raises(ConfigError, match=rf"callbacks\.x: _target_ {target} is not trusted; .*EarlyStopping.* may"):
        check(compose("train", [f"+callbacks.x._target_={target}"]))


@pytest.mark.parametrize(
    ("key", "target", "message"),
    [
        ("model.head", "aptlab.sweep.child.ChildProcess", r"is no whole aptlab\.models\.head\.HeadRule, which head of"),
        ("model.norm", "aptlab.nn.positions.rope.YaRN", r"is no whole aptlab\.nn\.norm\.Norm, which norm of aptlab"),
        ("block.sites.ffn.smooth", "aptlab.nn.norm.RMSNorm", r"is no whole aptlab\.nn\.smooth\.base\.Smooth"),
        ("optim.lr", "aptlab.nn.positions.rope.YaRN", r"lr of aptlab\.optim\.AdamW takes no component"),
        ("objective.aux", "aptlab.nn.positions.rope.YaRN", r"aux of aptlab\.objectives\.NextToken takes no component"),
        ("paths.root", "aptlab.nn.positions.rope.YaRN", r"no component belongs here; give a plain value"),
        ("seed", "aptlab.nn.positions.rope.YaRN", r"no component belongs here; give a plain value"),
        ("data.rows", "aptlab.data.store.split.Split", r"is no whole aptlab\.data\.rows\.base\.RowKind"),
        ("trainer.logger", "lightning.pytorch.loggers.CSVLogger", "is not trusted"),
        ("trainer.strategy", "aptlab.device.DDP", r"is no whole lightning\.pytorch\.strategies\.strategy\.Strategy"),
    ],
)
def test_a_part_of_another_kind_is_refused_by_check_and_by_build(key, target, message):
    group = key.partition(".")[0]
    config = compose(
        "train", [f"+{key}={{_target_:{target}}}" if key == "trainer.logger" else f"{key}={{_target_:{target}}}"]
    )
    with pytest.raises(ConfigError, match=rf"{key}: .*{message}"):
        check(config)
    if "." in key and group not in ("paths",):
        with pytest.raises(ConfigError, match=rf"{key}: .*{message}"):
            build(config.cfg[group])


def test_a_slot_that_points_at_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"model\.positions\.rope: aptlab\.nn\.norm\.RMSNorm is no whole .*Rope"):
        check(compose("train", ["model.positions.rope=${norm}"]))


@pytest.mark.parametrize("group", MACHINE)
def test_what_acts_on_the_machine_is_built_from_no_plain_node(group):
    with pytest.raises(ConfigError, match=rf"^{group}: .* is built from no file"):
        build({"_target_": "aptlab.loggers.Tracking"}, group)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        made = train("evals=none")
        return Run.read(made.path.absolute())


COMMANDS = {
    "load": lambda path: aptlab.load(path),
    "generate": lambda path: main(["generate", f"ckpt={path}", "max_new_tokens=1", "device=cpu"]),
    "export": lambda path: main(["export", f"ckpt={path}", "out=exported"]),
    "eval": lambda path: main(["eval", f"ckpt={path}", "device=cpu", "multiples=[1]", "tokens=32"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("key", ["model.norm", "model.positions.rope"])
def test_a_checkpoint_that_names_what_starts_a_process_starts_none(command, key, trained, tmp_path, capsys):
    marker = tmp_path / "marker"

    def name_process(entry: dict[str, Any]) -> None:
        set_value(entry["config"], key, touch_marker(marker))

    path = doctor_checkpoint(trained, tmp_path / "received", name_process)
    try:
        assert COMMANDS[command](path) == 2
        told = capsys.readouterr().err
    except ConfigError as error:
        told = str(error)
    assert f"{key}: aptlab.sweep.child.ChildProcess is no whole" in told
    assert left_marks(marker) == []


@pytest.mark.parametrize("key", ["data.split", "data.source", "data"])
def test_the_data_of_a_checkpoint_start_no_process_when_it_is_measured(key, trained, tmp_path, capsys):
    marker = tmp_path / "marker"
    path = doctor_checkpoint(
        trained, tmp_path / "received", lambda entry: set_value(entry["config"], key, touch_marker(marker))
    )
    assert COMMANDS["eval"](path) == 2
    assert "aptlab.sweep.child.ChildProcess" in capsys.readouterr().err
    assert left_marks(marker) == []


@pytest.mark.parametrize("key", ["norm", "model.head", "data.split", "+callbacks.x", "trainer", "logger", "device"])
def test_the_overrides_of_a_checkpoint_start_no_process_when_it_is_trained_on(key, trained, tmp_path, capsys):
    marker = tmp_path / "marker"
    node = yaml.safe_dump(touch_marker(marker), default_flow_style=True, width=10_000).strip().replace(": ", ":")
    override = f"{key}={node}" if "." in key else ""
    texts = [override] if override else [f"{key}._target_=aptlab.sweep.child.ChildProcess"]

    def append(entry: dict[str, Any]) -> None:
        entry["overrides"] = [*entry["overrides"], *texts]

    path = doctor_checkpoint(trained, tmp_path / "received", append)
    code = main(
        ["train", f"ckpt={path}", "load=weights", "evals=none", f"data.files={trained.path.parents[3]}/texts.jsonl"]
    )
    told = capsys.readouterr()
    assert left_marks(marker) == []
    refused = "aptlab.sweep.child.ChildProcess is no whole" in told.err and code == 2
    left_out = f"left out, for a checkpoint does not say where things go: {key}._target_" in told.out and code == 0
    assert refused or left_out


@pytest.mark.parametrize("group", ["norm", "model", "task", "callbacks", "evals"])
def test_a_received_conf_folder_starts_no_process(group, tmp_path, capsys):
    marker = tmp_path / "marker"
    node = touch_marker(marker)
    folder = Path("conf") / group
    folder.mkdir(parents=True)
    whole = {"part": node} if group in ("callbacks", "evals") else node
    (folder / "sent.yaml").write_text(f"# Sent.\n{yaml.safe_dump(whole)}")
    for command in ("check", "train"):
        assert main([command, *words(f"{group}=sent")]) == 2
        assert "aptlab.sweep.child.ChildProcess is no whole" in capsys.readouterr().err
    assert left_marks(marker) == []


def test_a_received_conf_folder_makes_no_kind_of_what_is_none(tmp_path):
    Path("conf").mkdir()
    Path("conf/groups.yaml").write_text("mine: aptlab.sweep.child.ChildProcess\n")
    with pytest.raises(ConfigError, match=r"groups\.yaml: aptlab\.sweep\.child\.ChildProcess is the kind of no group"):
        compose("train", []) and read_group_bases()


def test_the_door_needs_neither_torch_nor_an_import_of_what_it_judges():
    code = (
        "import sys; from aptlab.config import check, compose; check(compose('train', ['rope=yarn', 'smooth=memory']));"
        "print(sorted({'torch', 'lightning', 'aptlab.models', 'aptlab.nn.norm'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
