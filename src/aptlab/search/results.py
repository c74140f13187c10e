"""What a search leaves behind: the table, the option, search.json, and the command that uses the option."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from aptlab.config import redact_overrides
from aptlab.objectives import compute_perplexity
from aptlab.report.table import format_number, render_table
from aptlab.runs.record import write_json_record
from aptlab.search.baselines import Losses, average_losses, score_losses
from aptlab.search.engine import SearchResult
from aptlab.search.objectives import SearchObjective
from aptlab.search.option import write_option
from aptlab.search.prepare import PreparedSearch, strip_rule_factors
from aptlab.search.progress import format_factors
from aptlab.search.verdict import FOUND, SearchVerdict, describe_verdict, judge_search
from aptlab.shown import count_nouns

PAPERS = {
    "LongRoPE": "Ding et al. 2024, arXiv:2402.13753",
    "LongRoPE2": "Shang et al. 2025, arXiv:2502.20082",
    "linear": "position interpolation, Chen et al. 2023, arXiv:2306.15595",
    "ntk": "bloc97 2023",
    "yarn": "Peng et al. 2023, arXiv:2309.00071",
}


def describe_search(search: PreparedSearch) -> list[str]:
    """Lines that say what will be searched, and whether it goes on from earlier measurements."""
    problem, loaded, before = search.problem, search.loaded, len(search.output.journal.known)
    lines = [
        f"model    {loaded.path}, step {loaded.step:,}",
        f"search   {problem.kind}, {problem.original_len:,} -> {problem.target:,} tokens ({problem.scale:g}x), "
        f"{search.objective_name}, {search.settings.strategy}",
        f"folder   {search.output.folder}",
    ]
    return lines + ([f"going on with {before:,} measurements that were made before"] if before else [])


def write_search_results(
    search: PreparedSearch,
    found: SearchResult,
    losses: Mapping[str, Losses],
    objective: SearchObjective,
    seconds: float,
) -> list[str]:
    """Write search.json and, unless its scores rank nothing, the option; returns the lines to print.

    losses  of the rules without a search and of the one that was found, by name
    """
    problem, rule = search.problem, search.problem.found(found.factors, found.first)
    verdict = judge_search(losses, objective, search.worker.samples[problem.target])
    target = str(search.config.cfg.rope._target_)
    if verdict.informed:
        about = describe_option(search, objective, verdict)
        write_option(search.output.option, rule, target=target, about=about, folder=search.output.folder)
    write_json_record(
        search.output.folder / "search.json",
        {
            "checkpoint": str(search.loaded.path),
            "overrides": redact_overrides(search.config.overrides),
            "rope": {"kind": problem.kind, **strip_rule_factors(rule)},
            "target": problem.target,
            "objective": search.objective_name,
            "found": dataclasses.asdict(found),
            "scores": verdict.scores,
            "guessing": verdict.guessing,
            "verdict": verdict.word,
            "losses": losses,
            "seconds": seconds,
        },
    )
    iterations = count_nouns(found.iterations, "iteration")
    return [
        render_score_table(search, objective, losses, verdict),
        f"factors  {format_factors(found.factors)} (searched from pair {found.first})",
        f"cost     {found.tokens:,} tokens, {found.candidates:,} candidates, {iterations}",
        *([f"option   {search.output.option}"] if verdict.informed else []),
        f"results  {search.output.folder / 'search.json'}",
        describe_verdict(
            verdict, ckpt=search.loaded.path, option=search.output.option.stem, scale=search.problem.scale
        ),
    ]


def describe_option(search: PreparedSearch, objective: SearchObjective, verdict: SearchVerdict) -> str:
    """The first lines of the option: what was searched, by what, and what the rules without a search score."""
    problem = search.problem
    others = ", ".join(
        f"{name} {score:.4f}{f' ({PAPERS[name]})' if name in PAPERS else ''}"
        for name, score in verdict.scores.items()
        if name != FOUND
    )
    return (
        f"{problem.kind} ({PAPERS[problem.kind]}) for {problem.target:,} tokens, searched by {search.objective_name}: "
        f"{verdict.word}.\n# Scores ({objective.unit}, less is better): found {verdict.scores[FOUND]:.4f}; {others}."
    )


def render_score_table(
    search: PreparedSearch, objective: SearchObjective, losses: Mapping[str, Losses], verdict: SearchVerdict
) -> str:
    """One row per rule, the one that was found last, and in bold where it is the best."""
    rows = []
    for name, pairs in losses.items():
        answer, text = (format_number(compute_perplexity(nats), 3) for nats in average_losses(pairs))
        score = format_number(score_losses(objective, pairs), 4)
        rows.append([name, score, answer if objective.needles else "-", text])
    title = f"{search.problem.kind} at {search.problem.target:,} tokens ({objective.unit})"
    return render_table(
        ["rule", "score", "needle ppl", "text ppl"],
        rows,
        title=title,
        bold=[len(rows) - 1] * (verdict.word == "better"),
    )
