"""The six-field skeleton: its numbers against loops, and its way through a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aptlab.checkpoint import save_checkpoint
from aptlab.checkpoint.skeleton import load_skeleton, save_skeleton
from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.nn.skeleton import COMPRESSIONS, FIELDS, Skeleton, measure_rms
from tests.reference import skeleton as reference

DIM = 16


def draw(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def fill(compression: str = "mean", names: tuple[str, ...] = FIELDS) -> Skeleton:
    torch.manual_seed(0)
    skeleton = Skeleton(DIM, compression=compression)
    for number, name in enumerate(names):
        skeleton.update_field(name, draw(3, DIM, seed=number))
    return skeleton


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_fields_and_soft_tokens_are_those_of_the_loops(compression):
    skeleton = fill(compression)
    skeleton.update_field("topic", draw(5, DIM, seed=9), momentum=0.75)
    fields = [reference.pool(draw(3, DIM, seed=number).double().tolist()) for number in range(6)]
    fields[0] = reference.move(fields[0], reference.pool(draw(5, DIM, seed=9).double().tolist()), 0.75)
    if compression == "mean":
        z = [reference.compress_mean(field) for field in fields]
        soft = [reference.expand_mean(one) for one in z]
    else:
        assert skeleton.weight_KC is not None
        weight = skeleton.weight_KC.detach().double().tolist()
        z = [reference.compress_linear(weight, field) for field in fields]
        soft = [reference.expand_linear(weight, one) for one in z]
    assert skeleton.compress().shape == (6, DIM // 4)
    torch.testing.assert_close(skeleton.compress().double(), torch.tensor(z, dtype=torch.float64))
    torch.testing.assert_close(skeleton.prefix().double(), torch.tensor(soft, dtype=torch.float64))
    scaled = torch.tensor([reference.scale(one, 0.02) for one in soft], dtype=torch.float64)
    torch.testing.assert_close(skeleton.prefix(0.02).double(), scaled)


def test_only_fields_that_hold_something_give_a_token_and_a_cleared_one_gives_none():
    skeleton = Skeleton(DIM)
    assert skeleton.prefix(0.02).shape == (0, DIM)
    skeleton.update_field("unresolved", draw(DIM))
    skeleton.update_field("topic", draw(DIM, seed=1))
    assert skeleton.filled == ("topic", "unresolved")
    assert skeleton.prefix().shape == (2, DIM)
    skeleton.clear_field("topic")
    assert skeleton.filled == ("unresolved",)


def test_fitted_directions_keep_what_lies_in_a_quarter_of_the_width_and_beat_any_random_ones():
    inside = draw(40, DIM // 4) @ draw(DIM // 4, DIM, seed=1)
    skeleton = Skeleton(DIM, compression="linear")
    skeleton.fit_compression(inside)
    skeleton.update_field("topic", inside[0])
    torch.testing.assert_close(skeleton.prefix()[0], inside[0], rtol=1e-4, atol=1e-4)
    table = torch.nn.functional.normalize(draw(60, DIM, seed=2) * torch.linspace(0.1, 3, DIM), dim=-1)
    lost = []
    for seed in range(5):
        torch.manual_seed(seed)
        other = Skeleton(DIM, compression="linear")
        assert other.weight_KC is not None
        torch.testing.assert_close(other.weight_KC @ other.weight_KC.T, torch.eye(DIM // 4))
        if seed == 0:
            other.fit_compression(table)
        lost.append((table - table @ other.weight_KC.T @ other.weight_KC).square().mean().item())
    assert lost[0] < min(lost[1:])
    with pytest.raises(ConfigError, match="compression=mean has nothing to fit; use compression=linear"):
        Skeleton(DIM).fit_compression(table)


def test_the_compression_trains_and_the_fields_take_no_gradient():
    skeleton = fill("linear")
    skeleton.prefix(0.02).square().sum().backward()
    assert [name for name, _ in skeleton.named_parameters()] == ["weight_KC"]
    states = draw(3, DIM).requires_grad_()
    skeleton.update_field("topic", states)
    assert not skeleton.states_FC.requires_grad


def test_the_size_of_a_table_is_its_rms():
    assert measure_rms(torch.tensor([[3.0, 4.0], [0.0, 5.0]])) == pytest.approx((50 / 4) ** 0.5)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_dict_and_a_file_give_back_every_bit(compression, tmp_path):
    skeleton = fill(compression, ("constraints", "spike_regions"))
    skeleton.embedding = "abc"
    save_skeleton(skeleton, tmp_path / "notes.pt")
    for other in (Skeleton.from_dict(skeleton.to_dict()), load_skeleton(tmp_path / "notes.pt", dim=DIM)):
        assert (other.filled, other.compression, other.embedding) == (skeleton.filled, compression, "abc")
        assert torch.equal(other.prefix(), skeleton.prefix())
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in skeleton.state_dict().items())
    assert set(torch.load(tmp_path / "notes.pt", weights_only=True)) == {"skeleton"}


def test_a_new_process_reads_what_was_saved(tmp_path):
    skeleton = fill("linear")
    save_skeleton(skeleton, tmp_path / "notes.pt")
    code = (
        "import sys, json; from aptlab.checkpoint.skeleton import load_skeleton\n"
        "print(json.dumps(load_skeleton(sys.argv[1]).prefix().tolist()))"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "notes.pt"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert torch.equal(torch.tensor(json.loads(said.stdout)), skeleton.prefix())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.update_field("topics", draw(DIM)), r"there is no field topics; did you mean topic\?"),
        (
            lambda s: s.update_field("topic", draw(3, 8)),
            r"states of topic have sizes \[3, 8\]; give \[T, 16\] or \[16\]",
        ),
        (lambda s: s.update_field("topic", draw(0, DIM)), r"states of topic have sizes \[0, 16\]"),
        (lambda s: s.update_field("topic", draw(DIM) / 0), "states of topic are not finite"),
        (lambda s: s.update_field("topic", draw(DIM), 1.0), r"momentum=1\.0 must be in \[0, 1\)"),
        (lambda s: Skeleton(18), "dim=18 is not divisible by 4"),
        (lambda s: Skeleton(16, compression="men"), r"compression=men is not known; did you mean mean\?"),
    ],
)
def test_what_cannot_be_is_told(call, message):
    with pytest.raises(AptlabError, match=message):
        call(Skeleton(DIM))


def change(**values: Any) -> dict[str, Any]:
    return {**fill("linear").to_dict(), **values}


def change_field(name: str, value: Any) -> dict[str, Any]:
    return change(fields={**fill("linear").to_dict()["fields"], name: value})


DAMAGES = [
    ([1, 2], r"it holds no skeleton \(found: list; needed: format, dim, "),
    ({"state_dict": {}}, r"it holds no skeleton \(found: state_dict; needed: format"),
    (change(format=2), r"format=2, and this aptlab reads 1; install the one it is of"),
    (change(dim=18), r"dim=18 must be a whole number divisible by 4"),
    (change(dim=True), r"dim=True must be a whole number"),
    (change(dim=32), r"fields\.topic has sizes \[16\]; it must have \[32\]"),
    (change(compression="pca"), r"compression='pca'; allowed: mean, linear"),
    (change(compression="mean"), r"weight is given, and compression=mean has none"),
    (change(embedding=3), r"embedding=3 must be a text"),
    (change(weight=None), r"weight is a NoneType; it must be a float32 tensor of sizes \[4, 16\]"),
    (change(weight=torch.zeros(4, 8)), r"weight has sizes \[4, 8\]; it must have \[4, 16\]"),
    (change(fields=[]), r"fields=\[\] must be a dict of topic, constraints"),
    (change(fields={"topic": None}), r"fields\.constraints is missing; needed: topic, constraints"),
    (change_field("mood", None), r"fields\.mood is no field; allowed: topic, constraints"),
    (change_field("topic", "text"), r"fields\.topic is a str; it must be a float32 tensor of sizes \[16\]"),
    (change_field("topic", torch.zeros(DIM, dtype=torch.int64)), r"fields\.topic is a torch\.int64"),
    (change_field("topic", torch.full((DIM,), torch.nan)), r"fields\.topic holds numbers that are not finite"),
]


@pytest.mark.parametrize(("values", "message"), DAMAGES)
def test_what_is_no_skeleton_is_told_with_key_value_and_what_is_allowed(values, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        Skeleton.from_dict(values)
    save_checkpoint({"skeleton": values}, tmp_path / "notes.pt")
    with pytest.raises(CheckpointError, match=r"notes\.pt: .*; give another file, or move .* away to begin"):
        load_skeleton(tmp_path / "notes.pt")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pickle_foreign(path: Path) -> None:
    """A pickle that runs code when it is read, with a manifest that fits it."""
    import dataclasses
    import pickle

    from aptlab.checkpoint import read_manifest
    from aptlab.checkpoint.manifest import hash_file, make_manifest_path

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path(path.with_name("touched")).touch, ())

    manifest = read_manifest(path)
    path.write_bytes(pickle.dumps(Hostile(), protocol=2))
    fitting = dataclasses.replace(manifest, sha256=hash_file(path), bytes=path.stat().st_size)
    make_manifest_path(path).write_text(fitting.text())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), r"notes\.pt is truncated: "),
        (lambda path: path.write_bytes(b""), r"notes\.pt is empty"),
        (flip, r"notes\.pt is damaged: its content does not match its sha256"),
        (lambda path: path.with_suffix(".json").unlink(), r"notes\.json|notes\.pt"),
        (lambda path: path.with_suffix(".json").write_text("{}"), r"notes\.json is damaged"),
        (pickle_foreign, r"notes\.pt cannot be read with weights_only=True"),
        (lambda path: save_checkpoint({"state_dict": {}}, path), r"notes\.pt: it holds no skeleton, but a checkpoint"),
        (lambda path: save_skeleton(Skeleton(32), path), r"notes\.pt has dim=32, and the model has 16"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name_and_runs_nothing(damage, message, tmp_path):
    path = tmp_path / "notes.pt"
    save_skeleton(fill(), path)
    damage(path)
    with pytest.raises(CheckpointError, match=rf"({message}).*; give another file, or move .*notes\.pt away to begin"):
        load_skeleton(path, dim=DIM)
    assert not (tmp_path / "touched").exists()


def test_a_skeleton_writes_over_no_file_of_somebody_else(tmp_path):
    (tmp_path / "data.json").write_text("[1]")
    for name in ("data.pt", "data.json"):
        with pytest.raises(CheckpointError, match=r"would write its manifest over .*data\.json; give a name such as"):
            save_skeleton(fill(), tmp_path / name)
    assert (tmp_path / "data.json").read_text() == "[1]"
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match=r"cannot write .*; the skeleton of before is as it was: give another file"
    ):
        save_skeleton(fill(), tmp_path / "file" / "notes.pt")
