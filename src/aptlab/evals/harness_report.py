"""`eval=harness`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import time
from typing import Any

from aptlab.evals.context import EvalContext
from aptlab.evals.harness import HarnessModel, run_harness
from aptlab.evals.rules import Harness
from aptlab.report.table import format_number, render_table
from aptlab.runs.atomic import write_json


def run_harness_eval(bench: EvalContext, rule: Harness) -> None:
    """Print every metric that lm_eval reports; write eval.json."""
    changes = bench.changes(None)
    begun = time.perf_counter()
    answers = HarnessModel(
        bench.net,
        bench.tokenizer,
        length=rule.length or bench.context,
        batch=rule.batch,
        device=bench.device,
        precision=bench.precision,
    )
    found = run_harness(answers, rule)
    seconds = time.perf_counter() - begun
    rows = flatten_harness_metrics(found["results"])
    body = [
        [row["task"], row["metric"], format_number(row["value"], 4), format_number(row["error"], 4)] for row in rows
    ]
    print(render_table(["task", "metric", "value", "standard error"], body, left=2, title="lm-evaluation-harness"))
    kept = {
        name: found[name] for name in ("results", "versions", "n-shot", "n-samples", "lm_eval_version") if name in found
    }
    write_json(
        bench.folder / "eval.json",
        {**bench.facts(changes, None), "eval": bench.wanted["eval"], "seconds": seconds, "metrics": rows, **kept},
    )
    print(f"results  {bench.folder / 'eval.json'}")


def flatten_harness_metrics(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task and metric, from keys such as `acc,none` and `acc_stderr,none`."""
    rows = []
    for task, values in results.items():
        for key, value in values.items():
            metric, comma, form = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            error = values.get(f"{metric}_stderr,{form}")
            error = error if isinstance(error, int | float) else None
            rows.append({"task": task, "metric": metric, "filter": form, "value": value, "error": error})
    return rows
