"""`aptlab eval`: measure a trained model with its own or another position rule.

aptlab eval ckpt=last rope=yarn rope.factor=8                  loss at 1, 2, 4 and 8 times the trained context
aptlab eval ckpt=last eval=ruler eval.lengths=[512,1024]       13 tasks that ask for something in the prompt
aptlab eval ckpt=last eval=passkey                             a pass key at 11 depths (eval=needle: in local text)
aptlab eval ckpt=last eval=sliding                             perplexity with a sliding window
aptlab eval ckpt=last eval=harness eval.tasks=[name]           tasks of lm-evaluation-harness
The same command with out=<folder> goes on where an evaluation was broken off.
"""

from __future__ import annotations

from aptlab.evals.request import read_eval_request


def run(args: list[str]) -> int:
    """Check the request without torch, then load, measure, print and write; returns 0."""
    request = read_eval_request(args)
    from aptlab.evals.runner import evaluate_checkpoint

    evaluate_checkpoint(request.config, request.filled)
    return 0
