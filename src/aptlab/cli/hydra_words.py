"""What a user of `hydra.main` types, and what to type here: each is answered, none is ignored.

docs/config.md says how aptlab composes and why it does without `hydra.main`.
"""

from __future__ import annotations

import itertools

PAGE = "docs/config.md"
WHY = f"aptlab composes with Hydra and runs without hydra.main; {PAGE} says what to type instead"
ONE_PRIMARY = "each command has one primary config; choose by group=option, or a whole file by recipe=<name>"
OWN_FILES = "put files into ./conf/<group>/<name>.yaml, or install an extension"
SHOWN = "--cfg prints the configuration, aptlab check the choices, aptlab ls the groups"
WHOLE = "--cfg prints the whole configuration"
ONE_JOB = "leave it out: aptlab train runs one job"
SCRIPT = 'aptlab completion bash|zsh|fish prints the script: eval "$(aptlab completion bash)"'
# Flags of hydra.main -> what does the same here.
FLAGS = {
    "-cn": ONE_PRIMARY,
    "--config-name": ONE_PRIMARY,
    "-cp": OWN_FILES,
    "--config-path": OWN_FILES,
    "-cd": OWN_FILES,
    "--config-dir": OWN_FILES,
    "-i": SHOWN,
    "--info": SHOWN,
    "-c": WHOLE,
    "-p": WHOLE,
    "--package": WHOLE,
    "--resolve": "--cfg prints the configuration with interpolations filled in",
    "-r": ONE_JOB,
    "--run": ONE_JOB,
    "-sc": SCRIPT,
    "--shell-completion": SCRIPT,
    "--hydra-help": "aptlab <command> --help",
    "--experimental-rerun": "aptlab train ckpt=<run folder> goes on; overrides.yaml in it holds the command line",
}
WORDS_OF_CFG = ("job", "hydra", "all")
# Keys under `hydra.` and groups under `hydra/` -> what does the same here; the longest that fits counts.
KEYS = {
    "hydra.run.dir": "run_dir=<folder> sets the folder of a run, paths.root that of all runs",
    "hydra.sweep": "sweep.name=<folder> names the folder of a sweep, below paths.root",
    "hydra.launcher": "launcher=process|joblib|submitit with -m, and launcher.<key>=…",
    "hydra.sweeper": "-m key=a,b makes a grid; sweep=optuna searches",
    "hydra.job.name": "job=<name>",
    "hydra.job.chdir": "leave it out: a run never changes the working folder",
    "hydra.searchpath": OWN_FILES,
    "hydra.verbose": "APTLAB_DEBUG=1 shows tracebacks",
    "hydra.output_subdir": "config.yaml, overrides.yaml and choices.yaml lie in the run folder itself",
}


def find_hydra_problem(args: list[str]) -> str | None:
    """A line for each argument that belongs to `hydra.main`, then the page; None where there is none."""
    found = [line for arg in args if (line := _answer(arg))]
    if any(word in WORDS_OF_CFG for flag, word in itertools.pairwise(args) if flag == "--cfg"):
        found.append("--cfg: it takes no word here, and prints the configuration of the job")
    return "\n".join([*found, WHY]) if found else None


def _answer(arg: str) -> str | None:
    word = arg.partition("=")[0]
    if word in FLAGS:
        return f"{word}: {FLAGS[word]}"
    key = word.lstrip("+~").replace("/", ".")
    if key != "hydra" and not key.startswith("hydra."):
        return None
    parts = key.split(".")
    for length in range(len(parts), 1, -1):
        if instead := KEYS.get(".".join(parts[:length])):
            return f"{word}: {instead}"
    return f"{word}: there is no such key"
