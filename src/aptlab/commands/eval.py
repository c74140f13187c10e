"""`aptlab eval`: measure a trained model with its own or another position rule.

aptlab eval ckpt=last rope=yarn rope.factor=8                  loss at 1, 2, 4 and 8 times the trained context
aptlab eval ckpt=last eval=ruler eval.lengths=[512,1024]       13 tasks that ask for something in the prompt
aptlab eval ckpt=last eval=passkey                             a pass key at 11 depths (eval=needle: in local text)
aptlab eval ckpt=last eval=sliding                             perplexity with a sliding window
aptlab eval ckpt=last eval=harness eval.tasks=[name]           tasks of lm-evaluation-harness
The same command with out=<folder> goes on where an evaluation was broken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aptlab.config import Config, check, compose
from aptlab.errors import ConfigError
from aptlab.restore.request import STAND_IN, fill_config, list_override_keys, replace_config_values, sets_key

STORED = {
    "context": "choose lengths with multiples=[1,2,4,8]",
    "seed": "the measured text is chosen without chance",
    "tokenizer": "the weights know no other",
}
GROUPS = {"rope": "rope=yarn", "data": "data=text"}
DEFAULT = "lengths"  # the option of `eval` without a word


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """A checked request; `config` still lacks what only the checkpoint knows."""

    config: Config

    def filled(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The whole request as plain values, with those of the checkpoint's configuration put in."""
        return fill_config(self.config, stored, STORED)


def run(args: list[str]) -> int:
    """Check the request without torch, then load, measure, print and write; returns 0."""
    request = read_eval_request(args)
    from aptlab.evals.runner import evaluate_checkpoint

    evaluate_checkpoint(request.config, request.filled)
    return 0


def read_eval_request(args: list[str]) -> EvalRequest:
    """The request of a command line; ConfigError lists every problem."""
    refuse_eval_keys(args)
    config = compose("eval", args)
    check(replace_config_values(config, STAND_IN))
    if config.resolved().get("eval") is None:
        raise ConfigError(f"eval=null measures nothing; leave it out for eval={DEFAULT}, or choose one: aptlab ls eval")
    return EvalRequest(config=config)


def refuse_eval_keys(args: list[str]) -> None:
    """ConfigError for keys that are the checkpoint's, and values of groups that are not chosen."""
    given = list_override_keys(args)
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in STORED.items() if sets_key(key, given)]
    for group, example in GROUPS.items():
        inner = sorted(key for key in given if key.startswith(f"{group}."))
        if inner and group not in given:
            problems.append(f"{inner[0]}: choose the option first, as in {example} {inner[0]}=…")
    if problems:
        raise ConfigError("\n".join(problems))
