"""F10, F11, F12, F17, F18, F19, F20: other runs, servers, secrets, sweeps, places, memory and clocks."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.fault_campaigns.campaign import count_tries, make_random, open_place
from benchmarks.fault_campaigns.compare import find_last_step, is_same_run
from benchmarks.fault_campaigns.place import COMMON, STEPS, Place
from benchmarks.fault_campaigns.row import Row

SHORT = [*COMMON, "evals=none"]
JOBS = "rope=standard,yarn,linear"
ODD_PLACES = ("a name with spaces", "ünïcode-名前", "deep/er/and/deeper/still")
CLOSED_PLACES = ("/proc/aptlab-run", "a file", "below a file")


def run(count: int, seed: int) -> list[Row]:
    """Every kind, a few tries of each; more for a larger `count`."""
    rng, times = make_random(seed, "machine"), max(1, count // 40)
    with open_place() as place:
        whole, ended = place.start_run("evals=none")
        if ended.code != 0:
            raise RuntimeError(ended.text)
        cuts = [rng.uniform(3, 12) for _ in range(times)]
        return [
            count_tries("F10 runs side by side", "four that begin at once", [partial(begin_four, place)] * times, 1),
            count_tries("F10 runs side by side", "two in one folder", [partial(share_folder, place)] * times, 1),
            count_tries(
                "F11 W&B out of reach",
                "a server that is closed, one that is silent",
                [partial(lose_server, place, kind) for kind in ("closed", "silent")] * times,
                1,
            ),
            count_tries("F12 secrets", "in environment, address and options", [partial(plant_secrets, place)] * times),
            count_tries("F17 sweep", "killed and typed again", [partial(cut_sweep, place, cut) for cut in cuts], 1),
            count_tries(
                "F18 odd and closed places",
                f"{len(ODD_PLACES) + len(CLOSED_PLACES)} folders, no HOME",
                [partial(use_odd_place, place, name) for name in ODD_PLACES]
                + [partial(use_closed_place, place, name) for name in CLOSED_PLACES],
            ),
            count_tries("F19 too little memory", "RLIMIT_AS in training", [partial(starve, place)] * times),
            count_tries(
                "F20 clock",
                "set back between two parts, times of files reversed",
                [partial(turn_clock, place, whole)] * times,
            ),
        ]


def begin_four(place: Place) -> str:
    """Four runs in the same second get four folders."""
    root = place.make_name()
    log = Path(f"{root}.log")
    commands = [place.begin(log.with_suffix(f".{n}"), "train", *SHORT, f"paths.root={root}") for n in range(4)]
    codes = [command.wait().code for command in commands]
    folders = list(root.glob("train/*/*/result.json"))
    return "" if codes == [0] * 4 and len(folders) == 4 else f"exit codes {codes}, {len(folders)} folders"


def share_folder(place: Place) -> str:
    """Of two runs in one folder, one trains and the other is refused by name."""
    run = place.make_name()
    commands = [place.begin(Path(f"{run}.{n}.log"), "train", *SHORT, f"run_dir={run}") for n in range(2)]
    ended = sorted((command.wait() for command in commands), key=lambda one: one.code)
    if [one.code for one in ended] != [0, 2]:
        return f"exit codes {[one.code for one in ended]}"
    refused = ended[1]
    return "" if refused.is_one_message() and str(run) in refused.text else "the refusal does not name the folder"


def lose_server(place: Place, kind: str) -> str:
    """Training is not held up for long, and every number is on disk."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        if kind == "silent":
            server.listen(8)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        words = [word for word in SHORT if not word.startswith("logger")]
        words += ["logger=wandb", "logger.mode=online", f"logger.base_url={address}"]
        env = {"WANDB_MODE": "online", "WANDB_API_KEY": "a" * 40}
        run = place.make_name()
        ended = place.train(run, *words, f"run_dir={run}", env=env)
    from aptlab.runs import MetricsTable

    rows = MetricsTable.read(run / "metrics.csv").rows if ended.code == 0 else {}
    if ended.code != 0 or len(rows) != STEPS:
        return f"exit code {ended.code}, {len(rows)} rows"
    return "" if "W&B offline" in ended.text else "it does not say that W&B is offline"


def plant_secrets(place: Place) -> str:
    """Secrets of the environment, in an address and under a secret name are in no file and in no line."""
    keys = [f"planted{number}secret{os.getpid()}" for number in range(4)]
    env = {"WANDB_API_KEY": keys[0] + "a" * 40, "HF_TOKEN": keys[1], "MY_PASSWORD": keys[2], "WANDB_MODE": "offline"}
    words = [word for word in SHORT if not word.startswith("logger")]
    words += ["logger=wandb", "logger.mode=offline", f"logger.base_url=http://user:{keys[3]}@127.0.0.1:9"]
    run = place.make_name()
    ended = place.train(run, *words, f"run_dir={run}", env=env)
    if ended.code != 0:
        return f"exit code {ended.code}"
    files = [Path(f"{run}.log"), *(path for path in run.rglob("*") if path.is_file())]
    found = [path.name for path in files for key in keys if key.encode() in path.read_bytes()]
    return f"secrets in {found}" if found else ""


def cut_sweep(place: Place, after: float) -> str:
    """A sweep whose parent is killed and that is typed again makes every job once and ends with 0."""
    root = place.make_name()
    words = ["train", "-m", *SHORT, JOBS, f"paths.root={root}", "sweep.name=cut"]
    command = place.begin(Path(f"{root}.log"), *words)
    time.sleep(after)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    ended = place.run(Path(f"{root}.log"), *words)
    results = list(root.rglob("result.json"))
    return "" if ended.code == 0 and len(results) == 3 else f"exit code {ended.code}, {len(results)} results"


def use_odd_place(place: Place, name: str) -> str:
    """A folder with an odd name, without HOME: trains and goes on."""
    run = place.make_name() / name
    log = place.make_name()
    nobody = {"HOME": "", "XDG_CACHE_HOME": ""}
    ended = place.run(log, "train", *SHORT, f"run_dir={str(run)!r}", env=nobody)
    if ended.code != 0:
        return f"{name}: exit code {ended.code}: {ended.text.strip().splitlines()[-1:]}"
    ended = place.run(
        log, "train", f"ckpt={str(run)!r}", "trainer.max_steps=12", env={"HOME": "", "XDG_CACHE_HOME": ""}
    )
    return "" if ended.code == 0 and find_last_step(run) == 12 else f"{name}: going on ends with {ended.code}"


def use_closed_place(place: Place, name: str) -> str:
    """A folder that cannot be made: one message that names it."""
    run = Path(name) if name.startswith("/") else place.make_name()
    if not name.startswith("/"):
        run.write_text("here")
    if name.startswith("below"):
        run = run / "run"
    log = place.make_name()
    ended = place.run(log, "train", *SHORT, f"run_dir={run}")
    told = ended.is_one_message() and str(run.parent if name.startswith("below") else run) in ended.text
    return "" if ended.code == 2 and told else f"{name}: exit code {ended.code}"


def starve(place: Place) -> str:
    """An address space that is too small for the model: one message, and an earlier checkpoint stays valid."""
    run, ended = place.start_run("evals=none")
    used = _read_virtual_size()
    resource.prlimit(os.getpid(), resource.RLIMIT_AS)
    command = place.begin(Path(f"{run}.log"), "train", f"ckpt={run}", "trainer.max_steps=4000")
    time.sleep(4)
    try:
        resource.prlimit(command.pid, resource.RLIMIT_AS, (used // 2, used // 2))
    except ProcessLookupError:
        return f"it ended before it was starved: {command.wait().code}"
    ended = command.wait()
    return "" if ended.code != 0 and find_last_step(run) >= STEPS else f"exit code {ended.code}"


def _read_virtual_size() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def turn_clock(place: Place, whole: Path) -> str:
    """A clock that is set back by a day and files whose times are reversed: the newest step is still the last one."""
    run, ended = place.start_run("evals=none", fault="train.batch:8", env={"TZ": "Etc/GMT-14"})
    if ended.code != 137:
        return f"exit code {ended.code}"
    files = sorted((run / "checkpoints").glob("*.ckpt"))
    for age, path in enumerate(files):
        os.utime(path, (1e9 - age, 1e9 - age))
    ended = place.resume(run, env={"TZ": "Etc/GMT+12"})
    if ended.code != 0:
        return f"going on ends with {ended.code}"
    return "" if is_same_run(run, whole) else "it went on from another step"
