"""What Avalanche and Mammoth compute from three score matrices, stored for the tests of `aptlab.continual.metrics`.

    python benchmarks/continual_metrics.py --mammoth <folder with utils/metrics.py of commit e75a491c>

needs avalanche-lib==0.6.0 in an environment of its own. The numbers go to tests/continual/oracles.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "tests" / "continual" / "oracles.json"
COMMIT = "e75a491c69fd729edeb01431afb753d9157d9a81"
MATRICES: dict[str, tuple[list[list[float]], list[float]]] = {
    # Accuracies of a model that forgets.
    "forgets": (
        [
            [0.97, 0.11, 0.08, 0.10],
            [0.62, 0.95, 0.12, 0.09],
            [0.41, 0.70, 0.93, 0.14],
            [0.33, 0.52, 0.81, 0.96],
        ],
        [0.10, 0.09, 0.11, 0.10],
    ),
    # Earlier tasks go on to improve: the last row is the best one of some.
    "improves": ([[0.80, 0.30, 0.25], [0.84, 0.78, 0.41], [0.90, 0.75, 0.88]], [0.20, 0.24, 0.18]),
    # Language, in minus nats per token.
    "nats": ([[-1.31, -2.92, -3.40], [-2.05, -1.44, -3.11], [-2.60, -2.21, -1.97]], [-5.55, -5.56, -5.54]),
}


def define_missing_operators() -> Any:
    """Names that torchvision wants on import, where its kernels do not fit the torch that is there; keep the result."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def ask_avalanche(matrix: list[list[float]], baseline: list[float]) -> dict[str, float]:
    """Its stream metrics, fed the scores as its own evaluation loop feeds them."""
    metrics = "avalanche.evaluation.metrics"
    forgetting = importlib.import_module(f"{metrics}.forgetting_bwt")
    transfer = importlib.import_module(f"{metrics}.forward_transfer")
    kinds = {
        "forgetting": forgetting.StreamForgetting,
        "bwt": forgetting.StreamBWT,
        "fwt": transfer.StreamForwardTransfer,
    }
    found = {}
    for name, kind in kinds.items():
        metric = kind()
        metric.metric_update = lambda strategy: None
        metric.metric_result = lambda strategy: strategy.score
        metric._package_result = lambda strategy: None
        rows = [*([baseline] if name == "fwt" else []), *matrix]
        for i, row in enumerate(rows, start=len(matrix) - len(rows)):
            if i >= 0:
                metric.before_training_exp(SimpleNamespace(experience=SimpleNamespace(current_experience=i)))
            metric.before_eval(None)
            for j, score in enumerate(row):
                strategy = SimpleNamespace(experience=SimpleNamespace(current_experience=j), score=score)
                metric.before_eval_exp(strategy)
                metric.after_eval_iteration(strategy)
                metric.after_eval_exp(strategy)
            if i == len(matrix) - 1:
                found[name] = metric.result()
            metric.after_eval(SimpleNamespace(experience=SimpleNamespace(current_experience=0), eval_every=0))
    return found


def ask_mammoth(folder: Path, matrix: list[list[float]], baseline: list[float]) -> dict[str, float]:
    """Its three functions."""
    spec = importlib.util.spec_from_file_location("mammoth_metrics", folder / "utils" / "metrics.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy = [list(row) for row in matrix]
    return {
        "forgetting": float(module.forgetting(copy)),
        "bwt": float(module.backward_transfer(matrix)),
        "fwt": float(module.forward_transfer(matrix, [[score] for score in baseline])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mammoth", type=Path, required=True)
    folder = parser.parse_args().mammoth
    library = define_missing_operators()
    matrices = [
        {
            "name": name,
            "scores": scores,
            "baseline": baseline,
            "avalanche": ask_avalanche(scores, baseline),
            "mammoth": ask_mammoth(folder, scores, baseline),
        }
        for name, (scores, baseline) in MATRICES.items()
    ]
    del library
    facts = {
        "command": "python benchmarks/continual_metrics.py --mammoth <folder>",
        "avalanche-lib": version("avalanche-lib"),
        "mammoth": COMMIT,
        "matrices": matrices,
    }
    OUT.write_text(json.dumps(facts, indent=1) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
