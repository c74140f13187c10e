"""Make the picture and the table of the README again: run the sweep (or continue it), copy what it wrote.

python benchmarks/readme.py                    run the sweep here, then update README.md and docs/images
python benchmarks/readme.py outputs/…/folder   take a finished sweep
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import machine, versions

ROOT = Path(__file__).parents[1]
SWEEP = ["rope=standard,yarn", "smooth=none,memory", "seed=0,1"]
BEGIN, END = "<!-- sweep: begin -->", "<!-- sweep: end -->"


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


def main() -> None:
    folder = sweep_folder()
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "figure.png", images / "sweep.png")
    source = (
        f"`aptlab train -m {' '.join(SWEEP)}`, {budget(folder)} each, on {machine()}; "
        f"{versions('aptlab', 'torch', 'lightning')}. Written by `python benchmarks/readme.py`."
    )
    block = f"{BEGIN}\n{(folder / 'table.md').read_text().strip()}\n\n{source}\n{END}"
    readme = ROOT / "README.md"
    text = readme.read_text()
    if BEGIN not in text:
        raise SystemExit(f"README.md has no {BEGIN} line; put one where the table belongs")
    readme.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.DOTALL))
    print(block)


if __name__ == "__main__":
    main()
