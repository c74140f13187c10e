"""F7, F8, F9, F13, F15: numbers that are none, malformed data, wrong configurations, hostile files, changed minds."""

from __future__ import annotations

import gzip
import pickle
import re
import shutil
from functools import partial
from pathlib import Path

from benchmarks.fault_campaigns.campaign import count_tries, make_random, open_place
from benchmarks.fault_campaigns.compare import find_last_step, is_same_run
from benchmarks.fault_campaigns.engine import Ended
from benchmarks.fault_campaigns.place import COMMON, Place
from benchmarks.fault_campaigns.row import Row

LONG = "To be, or not to be, that is the question.\n" * 200
# file, its bytes, what the message must name
MALFORMED: list[tuple[str, bytes, str]] = [
    ("rows.jsonl", b'{"text": "ok"}\n{"text": \n', r"rows\.jsonl, line 2"),
    ("rows.jsonl", b'{"text": "ok"}\n{"txt": "x"}\n', r"line 2: has no field 'text'"),
    ("rows.jsonl", b'{"text": "ok"}\n{"text": 5}\n', r"line 2: field 'text' expects text"),
    ("rows.jsonl", b"[1, 2]\n", r"line 1: expects a JSON object"),
    ("rows.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2: not UTF-8"),
    ("text.txt", b"one\ntwo \xe9\n", r"text\.txt, line 2: not UTF-8"),
    ("text.txt", b"", r"text\.txt has no text"),
    ("text.txt", b"short", r"too few for one row"),
    ("text.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], r"the gzip stream is damaged"),
    ("rows.parquet", b"PAR1 nonsense", r"rows\.parquet"),
    ("gone.txt", b"", r"matches no file"),
]
# what is changed when a run goes on, its exit code, and whether the run that goes on is the same one
CHANGES: list[tuple[list[str], int, str]] = [
    (["trainer.max_steps=12"], 0, "the same run"),
    (["callbacks.checkpoints.keep=5"], 0, "the same run"),
    (["optim.lr=1e-4"], 2, "load=resume"),
    (["optim.lr=1e-4", "load=resume"], 0, "the same run"),
    (["data.split.seed=9"], 2, "load=weights"),
    (["data.split.seed=9", "load=weights"], 0, "another run"),
    (["size.dim=48"], 2, "size"),
]


def run(count: int, seed: int) -> list[Row]:
    """About `count` tries; the kinds of mistakes are all made, however small `count` is."""
    rng = make_random(seed, "inputs")
    from tests.config.test_wrong_configs import WRONG

    with open_place() as place:
        whole, ended = place.start_run("evals=none")
        if ended.code != 0:
            raise RuntimeError(ended.text)
        poisons = [partial(poison_batch, place, rng.randint(1, 8), what) for what in ("loss", "gradient") for _ in "12"]
        poisons += [partial(diverge, place)] * 2
        wrong = WRONG if count >= len(WRONG) else rng.sample(WRONG, count)
        hostile = [partial(open_hostile, place, whole, name) for name in HOSTILE]
        return [
            count_tries("F7 NaN or infinity", "in a loss, in a gradient, by a rate that diverges", poisons),
            count_tries(
                "F8 malformed data",
                f"{len(MALFORMED)} files, by train and by check",
                [partial(read_malformed, place, word, *case) for case in MALFORMED for word in ("train", "check")],
            ),
            count_tries(
                "F9 wrong configuration",
                f"{len(wrong)} mistakes of tests/config/test_wrong_configs.py",
                [partial(type_mistake, place, *case) for case in wrong],
            ),
            count_tries("F13 hostile files", "a pickle and configurations that would leave a marker", hostile),
            count_tries(
                "F15 resume with other options",
                f"{len(CHANGES)} changes",
                [partial(change_on_resume, place, whole, *case) for case in CHANGES],
            ),
        ]


def poison_batch(place: Place, at: int, what: str) -> str:
    """One bad micro-batch: its step changes no bit, the run goes on, all weights stay finite."""
    from tests.callbacks import test_guard as guard

    skipping, states, _ = guard.fit(guard.Poison(at, what=what), steps=10)
    if skipping.skipped_steps != 1 or not states.skipped[at]:
        return "the step was not skipped"
    if not guard.equal(states.states[at], states.states[at - 1]):
        return "a skipped step changed weights"
    return "" if all(tensor.isfinite().all() for tensor in states.states[-1]) else "weights that are not finite"


def diverge(place: Place) -> str:
    """A rate that no training survives: ends with 1, and no checkpoint that counts holds NaN."""
    from aptlab.checkpoint import find_checkpoint, load_checkpoint

    folder, ended = place.start_run("evals=none", "optim.lr=1e30", "schedule.warmup=0", "trainer.max_steps=30")
    if ended.code != 1 or not ended.is_one_message():
        return f"exit code {ended.code}"
    if not find_last_step(folder):
        return ""
    weights = load_checkpoint(find_checkpoint(folder))["state_dict"]
    return "" if all(w.isfinite().all() for w in weights.values()) else "the last checkpoint holds NaN"


def read_malformed(place: Place, command: str, name: str, data: bytes, message: str) -> str:
    """Exit 2, one message that names file and line, no run folder."""
    folder = place.make_name()
    folder.mkdir()
    if name != "gone.txt":
        (folder / name).write_bytes(data)
    run = folder / "run"
    words = [f"data.files={folder / name}", *COMMON, "tokenizer=bytes", f"run_dir={run}"]
    ended = place.run(folder / "log", *(["check", "train"] if command == "check" else ["train"]), *words)
    return _find_refusal_problem(ended, message, run)


def type_mistake(place: Place, words: str, message: str) -> str:
    """Exit 2, one message that names the key, no run folder."""
    run = place.make_name()
    ended = place.run(Path(f"{run}.log"), "train", f"run_dir={run}", *words.split(" "))
    return _find_refusal_problem(ended, re.escape(message), run) and f"{words}: exit code {ended.code}"


def _find_refusal_problem(ended: Ended, message: str, run: Path) -> str:
    if ended.code != 2 or not ended.is_one_message():
        return f"exit code {ended.code}, {message}"
    if run.exists():
        return f"a run folder is left, {message}"
    return "" if re.search(message, ended.text) else f"does not say {message}"


class Marker:
    """Leaves a file where a pickle that holds it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


HOSTILE = ("pickle with a fresh manifest", "target of a process", "target of a function", "option file beside it")


def open_hostile(place: Place, whole: Path, name: str) -> str:
    """A file that somebody sent is opened by every command: nothing in it runs, and it is refused in one message."""
    folder, marker = place.make_name(), place.make_name()
    shutil.copytree(whole, folder)
    (folder / ".lock").unlink(missing_ok=True)
    checkpoint = sorted((folder / "checkpoints").glob("*.ckpt"))[-1]
    words = _make_hostile(name, checkpoint, marker)
    wrong = []
    for command in ("train", "eval", "generate", "export"):
        more = {"export": [f"out={place.make_name()}"], "train": ["trainer.max_steps=20"]}.get(command, [])
        ended = place.run(Path(f"{folder}.log"), command, f"ckpt={checkpoint}", *words, *more)
        if marker.exists():
            return f"{command} ran what {name} holds"
        if ended.code not in (1, 2) or not ended.is_one_message():
            wrong.append(f"{command}: exit code {ended.code}")
    return "; ".join(wrong)


def _make_hostile(name: str, checkpoint: Path, marker: Path) -> list[str]:
    """Change a checkpoint into a hostile one of the named kind; returns what is typed beside it."""
    import torch

    from aptlab.checkpoint import load_checkpoint
    from aptlab.checkpoint.io import save_checkpoint
    from aptlab.checkpoint.manifest import hash_file, read_manifest, write_manifest

    state = load_checkpoint(checkpoint)
    targets = {"target of a process": "subprocess.run", "target of a function": "pathlib.Path.touch"}
    if name in targets:
        node = {"_target_": targets[name], "_args_": [["touch", str(marker)]]}
        state["aptlab"]["config"]["rope"] = state["aptlab"]["config"]["model"]["positions"]["rope"] = node
        state["aptlab"]["overrides"] += [f"rope._target_={targets[name]}", f"+rope._args_=[[touch,{marker}]]"]
        save_checkpoint(state, checkpoint)
        return []
    if name.startswith("option"):
        conf = Path(checkpoint).parents[1] / "conf" / "rope"
        conf.mkdir(parents=True)
        (conf / "hostile.yaml").write_text(f"# Not a rule.\n_target_: os.system\ncommand: touch {marker}\n")
        return ["rope=hostile"]
    manifest = read_manifest(checkpoint)
    torch.save({**state, "more": Marker(marker)}, checkpoint, pickle_module=pickle)
    import dataclasses

    write_manifest(
        checkpoint, dataclasses.replace(manifest, sha256=hash_file(checkpoint), bytes=checkpoint.stat().st_size)
    )
    return []


def change_on_resume(place: Place, whole: Path, words: list[str], code: int, what: str) -> str:
    """Used, or refused with the way out, and the run that is there keeps its checkpoints."""
    folder = place.make_name()
    shutil.copytree(whole, folder)
    (folder / ".lock").unlink(missing_ok=True)
    checkpoint = sorted((folder / "checkpoints").glob("*.ckpt"))[-2]
    more = [f"run_dir={place.make_name()}"] if what == "another run" else []
    ended = place.train(folder, f"ckpt={checkpoint}", *words, *more)
    if ended.code != code or not ended.is_one_message():
        return f"{words}: exit code {ended.code}"
    if code == 2:
        same = is_same_run(folder, whole)
        return "" if same and what in ended.text else f"{words}: does not say {what}" if same else f"{words}: changed"
    return ""
