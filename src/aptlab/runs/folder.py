"""The folder of one run: made once, written by one process, readable without torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.redact import redact_overrides, redact_value
from aptlab.runs import ranks
from aptlab.runs.atomic import write_text
from aptlab.runs.environment import collect_environment
from aptlab.runs.files import refuse_link, refuse_linked_folders, require_own_file
from aptlab.runs.lock import FolderLock
from aptlab.runs.record import write_json_record, write_yaml_record
from aptlab.runs.result import EARLIER, Result, read_result_if_whole


class RunFolder:
    """Where one run keeps everything; all writes are atomic, redacted, and done by rank zero only.

    `config.yaml overrides.yaml choices.yaml environment.json log.txt metrics.csv result.json
    figure.png tokenizer.json checkpoints/ evals/ results/ wandb/`; result.json comes when training is done, so a folder
    with one is a finished run. results/ has those of earlier ends, of a run that was trained further. Records that are
    read again carry a checksum: see `aptlab.runs.record`, and metrics.csv.sum beside metrics.csv.
    """

    def __init__(self, path: str | Path, *, writer: bool = True) -> None:
        self.path = Path(path).absolute()
        self.writer = writer
        self._lock: FolderLock | None = None
        self._ended = False  # whether the end of an earlier training is still to be replaced
        self._start: dict[str, Any] = {}  # records that wait until it is

    @classmethod
    def create(
        cls, root: str | Path = "outputs", *, job: str = "train", run_dir: str | Path | None = None
    ) -> RunFolder:
        """Make (or, with `run_dir`, make or reopen) a run folder and lock it.

        Every rank of a distributed run gets the same folder; only rank zero locks and writes it.
        Raises AptlabError if the place cannot be written, is a file, or is in use by another process, or if a folder
        inside it is a link that leads out of it.
        """
        writer = ranks.get_process_rank() == 0
        path = _chosen(Path(root).expanduser(), job, run_dir, writer)
        folder = cls(path, writer=writer)
        _make(folder.path, exclusive=False)
        refuse_linked_folders(folder.path)
        if writer:
            folder._lock = FolderLock.take(folder.path)
            os.environ[ranks.FOLDER_VARIABLE] = str(folder.path)
        return folder

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free for another process."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if os.environ.get(ranks.FOLDER_VARIABLE) == str(self.path) and self.writer:
            del os.environ[ranks.FOLDER_VARIABLE]

    @property
    def name(self) -> str:
        """The last part of the path, for titles."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints (made by whoever writes the first one)."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """metrics.csv"""
        return self.path / "metrics.csv"

    @property
    def finished(self) -> bool:
        """Whether result.json is there."""
        return (self.path / "result.json").is_file()

    def write_start(
        self,
        *,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        choices: Mapping[str, Any],
        seed: int | None = None,
    ) -> None:
        """Write the four files that say what this run is, before anything is trained.

        In a folder that has an end already they wait for `replace_end`: until then it is that end which they describe.
        """
        if not self.writer:
            return
        self._start = {
            "config.yaml": redact_value(dict(config)),
            "overrides.yaml": redact_overrides(overrides),
            "choices.yaml": redact_value(dict(choices)),
            "environment.json": collect_environment(seed=seed),
        }
        if not self._ended:
            self._write_records()

    def _write_records(self) -> None:
        for name, value in self._start.items():
            write = write_json_record if name.endswith(".json") else write_yaml_record
            write(self.path / name, value)
        self._start = {}

    def write_result(self, result: Result | Mapping[str, Any]) -> None:
        """Write result.json, which marks the run as finished; write it last."""
        self.replace_end()
        if self.writer:
            plain = result.plain() if isinstance(result, Result) else dict(result)
            write_json_record(self.path / "result.json", redact_value(plain))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run, such as tokenizer.json, as it is (not redacted)."""
        if self.writer:
            write_text(self.path / name, text)

    def reopen(self) -> None:
        """Before a run is trained further: its end stays until `replace_end`, however soon the new start breaks off.

        A damaged result is kept as result-damaged.json at once.
        """
        if not self.writer or not refuse_link(self.path / "result.json").is_file():
            return
        for name in ("metrics.csv", "metrics.csv.sum", "log.txt"):
            require_own_file(self.path / name)  # before anything is moved: a refused start leaves the end as it was
        result = read_result_if_whole(self.path)
        if result is None:
            os.replace(self.path / "result.json", self.path / "result-damaged.json")
            return
        self._ended = True

    def replace_end(self) -> None:
        """Once a new step or a new result is saved: result.json and figure.png of the earlier end go into results/.

        A result of an end whose evals were not done is taken away: it comes again. Nothing where there is no such end.
        Raises OSError, or AptlabError naming the file; what is missing then is done by the next call.
        """
        if self._ended and (result := read_result_if_whole(self.path)) is not None:
            self._put_away(result)
        self._ended = False
        self._write_records()

    def _put_away(self, result: Result) -> None:
        if result.status != "finished":
            (self.path / "result.json").unlink()
            return
        name = find_free_name(self.path / EARLIER, f"step-{result.steps:08d}")
        (self.path / EARLIER).mkdir(exist_ok=True)
        for file in ("figure.png", "result.json"):
            if (self.path / file).is_file():
                os.replace(self.path / file, self.path / EARLIER / f"{name}{Path(file).suffix}")


def find_free_name(folder: Path, name: str) -> str:
    """The name, or with a number behind it where a result of that name is there already."""
    taken, number = {path.stem for path in folder.glob("*.json")}, 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def make_folder(path: str | Path, *, way_out: str = "choose another with out=…") -> Path:
    """A folder for results, made with its parents where it is missing; returns its path.

    Raises AptlabError that names the folder and the reason and ends with `way_out`.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AptlabError(f"cannot make the folder {folder}: {error.strerror or error}; {way_out}") from error
    return folder


def _chosen(root: Path, job: str, run_dir: str | Path | None, writer: bool) -> Path:
    """The folder to use, made already if its name has to be new."""
    if run_dir is not None:
        return Path(run_dir).expanduser()
    inherited = os.environ.get(ranks.FOLDER_VARIABLE)
    if not writer and inherited:
        return Path(inherited)
    shared = ranks.make_shared_name(job)
    if shared is not None:
        return root / job / shared
    if not writer:
        raise AptlabError(
            f"rank {ranks.get_process_rank()} cannot know the run folder of rank 0; set run_dir=<folder> for all ranks"
        )
    return _new(root / job)


def _new(parent: Path) -> Path:
    """A folder that did not exist, named for this second; the clock may be wrong or jump."""
    for _ in range(1000):
        now = datetime.now()
        path = parent / f"{now:%Y-%m-%d}" / f"{now:%H%M%S}-{secrets.token_hex(2)}"
        if _make(path, exclusive=True):
            return path
    raise AptlabError(f"no free folder name under {parent}; choose another paths.root")


def _make(path: Path, *, exclusive: bool) -> bool:
    """Make a folder and its parents; False if `exclusive` and it was there already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=not exclusive)
        return True
    except FileExistsError:
        if exclusive and path.is_dir():
            return False
        problem = f"{_file_in_the_way(path)} is a file, not a folder"
    except NotADirectoryError:
        problem = f"{_file_in_the_way(path)} is a file, not a folder"
    except OSError as error:
        problem = str(error.strerror or error)
    raise AptlabError(f"cannot make the run folder {path}: {problem}; choose another run_dir or paths.root")


def _file_in_the_way(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), path)
