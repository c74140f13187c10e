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
from typing import TYPE_CHECKING, Any

from aptlab.config import Config, check, compose, expand_shortcuts, fill_request, inspect_inputs
from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, PositiveInt, Share
from aptlab.restore.request import (
    SOURCE,
    STAND_IN,
    fill_config,
    fill_source,
    find_unchosen_groups,
    list_override_keys,
    put_data_places,
    replace_config_values,
    sets_key,
    show_config,
    split_data_places,
)

if TYPE_CHECKING:
    from aptlab.device import Precision

STORED = {
    "context": "choose lengths with multiples=[1,2,4,8]",
    "seed": "the measured text is chosen without chance",
    "tokenizer": "the weights know no other",
}
GROUPS = {"rope": "rope=yarn", "source": "source=text", "data": "data=packed"}
DEFAULT = "lengths"  # the option of `eval` without a word


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What `aptlab eval` is asked for; `config` still lacks what only the checkpoint knows.

    config     the composed configuration, with its groups
    ckpt       last, best, a checkpoint or a run folder
    multiples  lengths to measure, in multiples of the trained context, where the eval has none of its own
    tokens     validation tokens, the same ones at every length
    precision  auto is bf16-mixed on CUDA, else 32-true
    width      of a nested model: one number, or one for each block; None = the whole model
    out        folder for results, and to go on in; None: evals/<time> in the folder of the run
    context    comes from the checkpoint
    seed       comes from the checkpoint
    """

    config: Config
    ckpt: str
    multiples: list[PositiveInt]
    tokens: PositiveInt
    precision: Precision
    width: Share | list[Share] | None
    out: str | None
    context: PositiveInt | None = None
    seed: NonNegativeInt | None = None

    def filled(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The whole request as plain values, with those of the checkpoint's configuration put in."""
        return fill_config(self.config, stored, STORED)


def run(args: list[str]) -> int:
    """Check the request without torch, then load, measure, print and write; returns 0."""
    request = read_eval_request(args)
    from aptlab.evals.runner import evaluate_checkpoint

    evaluate_checkpoint(request.config, request.filled)
    return 0


def resolve_config(args: list[str]) -> dict[str, Any]:
    """What `--cfg` prints: the request with what the evaluation takes from the checkpoint."""
    args, places = split_data_places(expand_shortcuts(args))
    return show_config(put_data_places(compose("eval", args), places), STORED)


def read_eval_request(args: list[str]) -> EvalRequest:
    """The request of a command line; ConfigError lists every problem."""
    args, places = split_data_places(expand_shortcuts(args))
    refuse_eval_keys(args)
    config = compose("eval", args)
    complete = replace_config_values(config, {**STAND_IN, **fill_source(config, SOURCE)})
    check(complete)
    inspect_inputs(complete)
    if complete.resolved().get("eval") is None:
        raise ConfigError(f"eval=null measures nothing; leave it out for eval={DEFAULT}, or choose one: aptlab ls eval")
    return fill_request(EvalRequest, put_data_places(config, places))


def refuse_eval_keys(args: list[str]) -> None:
    """ConfigError for keys that are the checkpoint's, and values of groups that are not chosen."""
    keys = list_override_keys(args)
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in STORED.items() if sets_key(key, keys)]
    problems += find_unchosen_groups(keys, GROUPS)
    if problems:
        raise ConfigError("\n".join(problems))
