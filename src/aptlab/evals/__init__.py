"""Evals of a network: loss at lengths it was not trained for, what it finds in long texts, tasks of others.

One file an eval (`lengths`, `sample`, `sliding`, `passkey`, `needle`, `ruler`, `harness`): its options, its
`measure`, its table and its figure. `scoring` computes the numbers and needs torch; everything else imports none at
the top. The names below are loaded when one of them is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aptlab.evals.base import Eval, EvalContext, EvalFolder, Measurement
    from aptlab.evals.documents import DocumentLoss
    from aptlab.evals.fitting import fit_windows
    from aptlab.evals.harness import Harness
    from aptlab.evals.lengths import LengthLoss
    from aptlab.evals.needle import NeedleRetrieval
    from aptlab.evals.passkey import PasskeyRetrieval
    from aptlab.evals.retrieval import RetrievalEval
    from aptlab.evals.ruler import Ruler
    from aptlab.evals.sample import TextSample
    from aptlab.evals.scoring.harness import HarnessModel, run_harness
    from aptlab.evals.scoring.lengths import LengthResults, evaluate_lengths, evaluate_windows
    from aptlab.evals.scoring.retrieval import SampleOutcome, answer_samples
    from aptlab.evals.scoring.seq2seq import score_pairs
    from aptlab.evals.scoring.sliding import score_segment
    from aptlab.evals.scoring.widths import score_widths
    from aptlab.evals.seq2seq import Seq2SeqScores
    from aptlab.evals.sliding import SlidingLoss
    from aptlab.evals.widths import WidthLoss

__all__ = [
    "DocumentLoss",
    "Eval",
    "EvalContext",
    "EvalFolder",
    "Harness",
    "HarnessModel",
    "LengthLoss",
    "LengthResults",
    "Measurement",
    "NeedleRetrieval",
    "PasskeyRetrieval",
    "RetrievalEval",
    "Ruler",
    "SampleOutcome",
    "Seq2SeqScores",
    "SlidingLoss",
    "TextSample",
    "WidthLoss",
    "answer_samples",
    "evaluate_lengths",
    "evaluate_windows",
    "fit_windows",
    "run_harness",
    "score_pairs",
    "score_segment",
    "score_widths",
]
HOMES = {
    "DocumentLoss": "aptlab.evals.documents",
    "Eval": "aptlab.evals.base",
    "EvalContext": "aptlab.evals.base",
    "EvalFolder": "aptlab.evals.base",
    "Harness": "aptlab.evals.harness",
    "HarnessModel": "aptlab.evals.scoring.harness",
    "LengthLoss": "aptlab.evals.lengths",
    "LengthResults": "aptlab.evals.scoring.lengths",
    "Measurement": "aptlab.evals.base",
    "NeedleRetrieval": "aptlab.evals.needle",
    "PasskeyRetrieval": "aptlab.evals.passkey",
    "RetrievalEval": "aptlab.evals.retrieval",
    "Ruler": "aptlab.evals.ruler",
    "SampleOutcome": "aptlab.evals.scoring.retrieval",
    "Seq2SeqScores": "aptlab.evals.seq2seq",
    "SlidingLoss": "aptlab.evals.sliding",
    "TextSample": "aptlab.evals.sample",
    "WidthLoss": "aptlab.evals.widths",
    "answer_samples": "aptlab.evals.scoring.retrieval",
    "evaluate_lengths": "aptlab.evals.scoring.lengths",
    "evaluate_windows": "aptlab.evals.scoring.lengths",
    "fit_windows": "aptlab.evals.fitting",
    "run_harness": "aptlab.evals.scoring.harness",
    "score_pairs": "aptlab.evals.scoring.seq2seq",
    "score_segment": "aptlab.evals.scoring.sliding",
    "score_widths": "aptlab.evals.scoring.widths",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
