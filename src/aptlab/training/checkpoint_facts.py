"""What a checkpoint is, in a few lines: its file, its run, its numbers, and what its run changed. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from aptlab.checkpoint import find_run_folder, read_manifest
from aptlab.checkpoint.find import is_imported
from aptlab.checkpoint.manifest import Manifest
from aptlab.config import compose
from aptlab.errors import AptlabError
from aptlab.restore.upgrade import upgrade_manifest
from aptlab.runs.result import read_sealed_result
from aptlab.shown import count_nouns
from aptlab.training.labels import select_shown_choices
from aptlab.training.plan import choose_named_checkpoint, compare_configs

MOST = 20  # lines in all
PLACES = ("job", "run_dir", "ckpt", "load", "paths", "launcher", "sweep")  # no part of the experiment


def describe_chosen_checkpoint(ckpt: str, args: Sequence[str] = ()) -> list[str]:
    """At most `MOST` lines about the checkpoint that `ckpt=` means, whose file is read whole and compared.

    args  may hold `paths.root=` and `job=`, where `ckpt` is last or best. CheckpointError says what is not there, what
    is damaged, and which one beside it is whole.
    """
    path = choose_named_checkpoint(ckpt, list(args))
    manifest = upgrade_manifest(read_manifest(path))
    head = [f"ckpt     {path}", describe_file(manifest), describe_run(path, manifest)]
    if manifest.metric is not None:
        head.append(f"metric   {manifest.monitor} {manifest.metric:.6g}, which is best where it is {manifest.mode}imal")
    head += describe_last_result(path)
    choices = select_shown_choices({key: value for key, value in manifest.choices.items() if value is not None})
    head.append(f"parts    {'  '.join(f'{group}={option}' for group, option in choices.items())}")
    head += describe_nested_widths(manifest.config)
    return [*head, *describe_changes(manifest.config, room=MOST - len(head))]


def describe_file(manifest: Manifest) -> str:
    """Its state: `choose_named_checkpoint` has compared the content with the manifest."""
    size = f"{manifest.bytes:,} bytes"
    return f"state    whole: {size} with the sha256 of its manifest, {manifest.sha256[:16]}…"


def describe_run(path: Path, manifest: Manifest) -> str:
    """Its step, when it was saved and by which version, and the folder of its run."""
    folder = find_run_folder(path)
    if is_imported(folder):
        return f"step     0: imported weights, no training, in {folder}"
    saved = f", saved {datetime.fromtimestamp(manifest.time):%Y-%m-%d %H:%M}" if manifest.time else ""
    version = f" by aptlab {manifest.version}" if manifest.version else ""
    return f"step     {manifest.step:,}{saved}{version}, of the run {folder}"


def describe_last_result(path: Path) -> list[str]:
    """What its run measured at its end, where it has come to one."""
    try:
        result, _ = read_sealed_result(find_run_folder(path))
    except AptlabError:
        return []
    numbers = [f"{name} {value:.4f}" for name, value in result.metrics.items() if value is not None][:4]
    return [f"result   {result.status} at step {result.steps:,}: {', '.join(numbers) or 'nothing was measured'}"]


def describe_nested_widths(config: Mapping[str, Any]) -> list[str]:
    """The widths of a nested network and what each saves, which is linear in it; none for any other network."""
    ffn = config.get("ffn")
    nested = ffn.get("nested") if isinstance(ffn, Mapping) else None
    widths = nested.get("granularities") if isinstance(nested, Mapping) else None
    if not isinstance(widths, list) or not all(isinstance(width, int | float) for width in widths):
        return []
    saved = [f"{width:g}" + (f" ({width - 1:+.1%})" if width < 1 else "") for width in sorted(widths, reverse=True)]
    return [f"widths   {', '.join(saved)}, in brackets the FLOPs of the feed-forwards against the whole model"]


def describe_changes(config: Mapping[str, Any], *, room: int) -> list[str]:
    """Where a configuration differs from that of `aptlab train` without a word, in at most `room` lines."""
    if not config:
        return ["changes  unknown: an earlier version wrote no configuration beside the checkpoint"]
    changed = compare_configs(compose("train", []).public(), config)
    lines = [
        f"  {key}: {before} -> {after}"
        for key, (before, after) in sorted(changed.items())
        if key.partition(".")[0] not in PLACES
    ]
    if not lines:
        return ["changes  none: all values are the defaults"]
    shown = lines if len(lines) < room else [*lines[: room - 2], f"  … and {len(lines) - room + 2} more"]
    return [f"changes  {count_nouns(len(lines), 'value')} differ{'s' * (len(lines) == 1)} from the default:", *shown]
