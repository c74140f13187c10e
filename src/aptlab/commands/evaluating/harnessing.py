"""`eval=harness`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import time
from typing import Any

from aptlab.commands.evaluating.bench import Bench
from aptlab.evals.harness import Answers, run
from aptlab.evals.rules import Harness
from aptlab.report.table import number, render
from aptlab.runs.atomic import write_json


def measure(bench: Bench, rule: Harness) -> None:
    """Print every metric that lm_eval reports; write eval.json."""
    changes = bench.changes(None)
    begun = time.perf_counter()
    answers = Answers(
        bench.net,
        bench.tokenizer,
        length=rule.length or bench.context,
        batch=rule.batch,
        device=bench.device,
        precision=bench.precision,
    )
    found = run(answers, rule)
    seconds = time.perf_counter() - begun
    rows = metrics(found["results"])
    body = [[row["task"], row["metric"], number(row["value"], 4), number(row["error"], 4)] for row in rows]
    print(render(["task", "metric", "value", "standard error"], body, left=2, title="lm-evaluation-harness"))
    kept = {
        name: found[name] for name in ("results", "versions", "n-shot", "n-samples", "lm_eval_version") if name in found
    }
    write_json(
        bench.folder / "eval.json",
        {**bench.facts(changes, None), "eval": bench.wanted["eval"], "seconds": seconds, "metrics": rows, **kept},
    )
    print(f"results  {bench.folder / 'eval.json'}")


def metrics(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
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
