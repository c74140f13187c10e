"""Files of skeletons: written whole or not at all, with a manifest that knows their sha256, and never executed."""

from __future__ import annotations

from pathlib import Path

from aptlab.checkpoint.io import load_checkpoint, save_checkpoint
from aptlab.checkpoint.manifest import make_manifest_path
from aptlab.errors import CheckpointError
from aptlab.nn.skeleton import Skeleton

ENTRY = "skeleton"


def save_skeleton(skeleton: Skeleton, path: str | Path) -> None:
    """Write a skeleton and its manifest, as `save_checkpoint` does: notes.pt and notes.json.

    Raises CheckpointError, with an earlier file of the name intact, where it cannot be written.
    """
    path = refuse_foreign_manifest(path)
    try:
        save_checkpoint({ENTRY: skeleton.to_dict()}, path)
    except CheckpointError as error:
        reason = str(error).partition(";")[0]
        raise CheckpointError(f"{reason}; the skeleton of before is as it was: give another file") from error


def load_skeleton(path: str | Path, *, dim: int | None = None) -> Skeleton:
    """The skeleton of a file, read with weights_only=True after its sha256 was compared.

    dim  of the model that is to read it; None = any
    Raises CheckpointError naming the file where it is damaged, no skeleton, or one of a model of another width.
    """
    way_out = f"give another file, or move {path} away to begin an empty skeleton"
    try:
        found = load_checkpoint(path)
        if ENTRY not in found:
            raise CheckpointError("it holds no skeleton, but a checkpoint or another file of tensors")
        skeleton = Skeleton.from_dict(found[ENTRY])
    except CheckpointError as error:
        reason = str(error).removesuffix("; use another checkpoint of the run")
        reason = reason if str(path) in reason else f"{path}: {reason}"
        raise CheckpointError(f"{reason}; {way_out}") from None
    if dim is not None and skeleton.dim != dim:
        raise CheckpointError(f"{path} has dim={skeleton.dim}, and the model has {dim}; {way_out}")
    return skeleton


def refuse_foreign_manifest(path: str | Path) -> Path:
    """The path, if writing it takes nothing of somebody else's away; CheckpointError where its manifest would."""
    path = Path(path)
    manifest = make_manifest_path(path)
    if manifest == path or (manifest.exists() and not path.exists()):
        raise CheckpointError(
            f"{path} would write its manifest over {manifest}; give a name such as {path.with_suffix('.pt').name} "
            "beside which there is no such file"
        )
    return path
