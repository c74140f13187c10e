"""Make the picture and the tables of the README again: run the sweep (or continue it), copy what it wrote.

python benchmarks/readme.py                    run the sweep here, then update README.md and docs/images
python benchmarks/readme.py outputs/…/folder   take a finished sweep
python benchmarks/readme.py --tables           only the tables of components and rows, which need no run
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tables import replace_block, write_tables

ROOT = Path(__file__).parents[1]
SWEEP = ["rope=standard,yarn", "smooth=none,memory", "seed=0,1,2,3,4"]


def sweep_folder() -> Path:
    """The folder of the README's sweep, run to its end if it is not."""
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    subprocess.run([sys.executable, "-m", "aptlab", "train", "-m", *SWEEP, "sweep.name=readme"], check=True)
    return Path("outputs/train/sweeps/readme")


def budget(folder: Path) -> str:
    """Steps, tokens and data of a job, from its result."""
    result = json.loads(next(folder.rglob("result.json")).read_text())
    return f"{result['steps']:,} steps, {result['tokens']:,} tokens, {result['parameters']:,} parameters"


def describe_origin(folder: Path) -> str:
    """Machine, precision and versions of a job, as it recorded them itself: it may have run elsewhere."""
    result, environment = (
        json.loads(next(folder.rglob(name)).read_text()) for name in ("result.json", "environment.json")
    )
    found, packages = environment["machine"], environment["packages"]
    gpus = "".join(f", {name}" for name in found["gpus"])
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "lightning"))
    where = f"{found['cores']} cores of {found['cpu']}{gpus}, {result['ran']['precision']}"
    return f"{where}; aptlab {environment['aptlab']}, Python {environment['python']}, {versions}"


def main() -> None:
    write_tables()
    if "--tables" in sys.argv:
        return
    folder = sweep_folder()
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "figure.png", images / "sweep.png")
    source = (
        f"`aptlab train -m {' '.join(SWEEP)}`, {budget(folder)} each, on {describe_origin(folder)}. "
        f"Written by `python benchmarks/readme.py`."
    )
    block = f"{(folder / 'table.md').read_text().strip()}\n\n{source}"
    readme = ROOT / "README.md"
    readme.write_text(replace_block(readme.read_text(), "sweep", block))
    print(block)


if __name__ == "__main__":
    main()
