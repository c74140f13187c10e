"""A checkpoint as a model of lm-evaluation-harness (Gao et al. 2021, doi:10.5281/zenodo.5371628).

Legend: B rows, L tokens of a row. `HarnessModel` holds what the three request types mean and needs no lm_eval;
`make_lm` wraps it in the class that lm_eval asks for, and `run_harness` hands it to lm_eval's evaluator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aptlab.data.tokenizers import Tokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.scoring.lengths import LOGITS, make_autocast
from aptlab.models import Decoder
from aptlab.objectives import IGNORE, compute_token_nll
from aptlab.sample import SamplingRules, StopText, generate_rows

log = logging.getLogger("aptlab")
MISSING = "eval=harness needs lm_eval, which is not installed; pip install 'aptlab[harness]'"
NEW_TOKENS = 256  # where a task does not say how many
KNOWN = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p"}
KNOWN |= {"repetition_penalty"}
Progress = Callable[[int], None]


class HarnessModel:
    """Log-likelihoods and texts of a network, for requests whose `args` are those of lm_eval's `Instance`.

    length  tokens of context; what is longer loses its beginning, with one warning
    batch   rows at a time
    """

    def __init__(
        self,
        net: Decoder,
        tokenizer: Tokenizer,
        *,
        length: int,
        batch: int = 8,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        progress: Progress | None = None,
    ) -> None:
        self.net, self.tokenizer, self.length, self.batch = net, tokenizer, length, batch
        self.device, self.precision, self.progress = torch.device(device), precision, progress
        self._warned = False
        net.to(self.device).eval()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """ln p(continuation | context) in nats, and whether greedy decoding would write the continuation."""
        rows = [self._pair(*request.args) for request in requests]
        return self._scored(rows)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """ln p(text) in nats; the first token follows an end-of-text token.

        A text longer than `length` is cut into windows that share no target; each begins with the last token of the
        one before, so that every token has some context.
        """
        cut = [list(self._windows(self.tokenizer.encode(request.args[0]))) for request in requests]
        scored = iter(self._scored([row for rows in cut for row in rows]))
        return [sum(next(scored)[0] for _ in rows) for rows in cut]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Texts that follow the contexts, up to the first stop string, which is left out."""
        out = [""] * len(requests)
        settings = [parse_generation_kwargs(request.args[1]) for request in requests]
        for group in group_requests(settings):
            for first in range(0, len(group), self.batch):
                block = group[first : first + self.batch]
                for index, text in zip(block, self._texts([requests[i].args[0] for i in block], settings[block[0]])):
                    out[index] = text
                self.report_error(len(block))
        return out

    def _pair(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Tokens of both together, and how many belong to the continuation; a space between them is the latter's."""
        trimmed = context.rstrip()
        continuation = context[len(trimmed) :] + continuation if trimmed else context + continuation
        before = self.tokenizer.encode(trimmed) if trimmed else [self.tokenizer.eos]
        whole = self.tokenizer.encode(trimmed + continuation) if trimmed else []
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole, len(whole) - len(before)
        after = self.tokenizer.encode(continuation)
        return before + after, len(after)

    def _windows(self, tokens: list[int]) -> Iterator[tuple[list[int], int]]:
        tokens = [self.tokenizer.eos, *tokens]
        for first in range(1, len(tokens), self.length):
            last = min(first + self.length, len(tokens))
            yield tokens[first - 1 : last], last - first

    def _scored(self, rows: list[tuple[list[int], int]]) -> list[tuple[float, bool]]:
        """Rows of similar length are read together; the answers come in the order of the rows."""
        rows = [(self._cut(tokens, self.length + 1), min(count, self.length)) for tokens, count in rows]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        out = [(0.0, True)] * len(rows)
        for first in range(0, len(order), self.batch):
            block = order[first : first + self.batch]
            for index, answer in zip(block, self._batch([rows[i] for i in block])):
                out[index] = answer
            self.report_error(len(block))
        return out

    @torch.inference_mode()
    def _batch(self, rows: list[tuple[list[int], int]]) -> list[tuple[float, bool]]:
        longest = max(len(tokens) for tokens, _ in rows) - 1
        inputs_BL = torch.zeros(len(rows), longest, dtype=torch.long)
        targets_BL = torch.full_like(inputs_BL, IGNORE)
        for row, (tokens, count) in enumerate(rows):
            inputs_BL[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            if count:
                targets_BL[row, len(tokens) - 1 - count : len(tokens) - 1] = torch.tensor(tokens[-count:])
        inputs_BL, targets_BL = inputs_BL.to(self.device), targets_BL.to(self.device)
        with make_autocast(self.device, self.precision):
            nats_B, greedy_B = self._measured(inputs_BL, targets_BL)
        return list(zip((-nats_B).tolist(), greedy_B.tolist()))

    def _measured(self, inputs_BL: Tensor, targets_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of -ln p(target), float64 [B], and whether every target is the likeliest token, bool [B]."""
        rows, length = inputs_BL.shape
        step = max(1, LOGITS // self.net.vocab // rows)
        cache = self.net.new_cache(rows, length) if step < length else None
        nats_B = torch.zeros(rows, dtype=torch.float64, device=self.device)
        greedy_B = torch.ones(rows, dtype=torch.bool, device=self.device)
        for tokens_BT, targets_BT in zip(inputs_BL.split(step, 1), targets_BL.split(step, 1)):
            logits_BTV = self.net(tokens_BT, cache=cache).logits
            nats_B += compute_token_nll(logits_BTV, targets_BT, "none").double().sum(1)
            greedy_B &= ((logits_BTV.argmax(-1) == targets_BT) | (targets_BT == IGNORE)).all(1)
        return nats_B, greedy_B

    def _texts(self, contexts: list[str], settings: GenerationSettings) -> list[str]:
        new = min(settings.new_tokens, max(1, self.length - 1))
        prompts = [self.tokenizer.encode(text) or [self.tokenizer.eos] for text in contexts]
        prompts = [self._cut(prompt, max(1, self.length - new)) for prompt in prompts]
        streams = [self.tokenizer.stream() for _ in prompts]
        watches = [StopText(settings.until) for _ in prompts]
        texts = [""] * len(prompts)

        def on_token(row: int, token: int) -> bool:
            texts[row] += watches[row].push(streams[row].push(token))
            return watches[row].stopped

        with make_autocast(self.device, self.precision):
            generate_rows(
                self.net,
                prompts,
                rules=settings.rules,
                max_new_tokens=new,
                eos=self.tokenizer.eos,
                seed=list(range(len(prompts))),
                on_token=on_token,
                vocab=self.tokenizer.vocab_size,
            )
        return [text + watch.finish(stream.finish()) for text, watch, stream in zip(texts, watches, streams)]

    def _cut(self, tokens: list[int], most: int) -> list[int]:
        if len(tokens) > most and not self._warned:
            self._warned = True
            log.warning(
                "texts of more than %d tokens lose their beginning (the first had %d); set length=…",
                self.length,
                len(tokens),
            )
        return tokens[-most:]

    def report_error(self, count: int) -> None:
        if self.progress is not None:
            self.progress(count)


@dataclass(frozen=True)
class GenerationSettings:
    """How a text is to be generated: stop strings, number of tokens, sampling rules."""

    until: tuple[str, ...]
    new_tokens: int
    rules: SamplingRules


def parse_generation_kwargs(kwargs: Mapping[str, Any]) -> GenerationSettings:
    """The generation settings of a task; AptlabError for one that means nothing here."""
    unknown = sorted(set(kwargs) - KNOWN)
    if unknown:
        raise AptlabError(
            f"the task asks for {unknown[0]}={kwargs[unknown[0]]!r}, which is not known here; change its "
            f"generation_kwargs, allowed: {', '.join(sorted(KNOWN))}"
        )
    until = kwargs.get("until") or ()
    names = ("top_k", "top_p", "min_p", "repetition_penalty")
    temperature = float(kwargs.get("temperature") or 1.0) if kwargs.get("do_sample") else 0.0
    return GenerationSettings(
        until=(until,) if isinstance(until, str) else tuple(until),
        new_tokens=int(kwargs.get("max_gen_toks") or kwargs.get("max_new_tokens") or NEW_TOKENS),
        rules=SamplingRules(
            temperature=temperature, **{name: kwargs[name] for name in names if kwargs.get(name) is not None}
        ),
    )


def group_requests(settings: Sequence[GenerationSettings]) -> Iterator[list[int]]:
    """Indices of requests that can be generated together, in order of appearance."""
    groups: dict[GenerationSettings, list[int]] = {}
    for index, setting in enumerate(settings):
        groups.setdefault(setting, []).append(index)
    yield from groups.values()


def make_lm(answers: HarnessModel) -> Any:
    """An object of lm_eval's class `LM` that passes every request to `answers`. ConfigError without lm_eval."""
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise ConfigError(MISSING) from error

    def passed(name: str) -> Callable[..., Any]:
        return lambda self, requests, *args, **kwargs: getattr(answers, name)(requests)

    names = ("loglikelihood", "loglikelihood_rolling", "generate_until")
    return type("AptlabLM", (LM,), {name: passed(name) for name in names})()


def run_harness(
    answers: HarnessModel,
    tasks: Sequence[str],
    *,
    include: str | None = None,
    shots: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """lm_eval's result for some of its tasks: `results`, `versions`, `n-samples`, … as lm_eval names them.

    `include` is a folder with task files. ConfigError without lm_eval, and for a task that it does not know.
    """
    model = make_lm(answers)
    import lm_eval
    from lm_eval.tasks import TaskManager

    evaluate: Any = lm_eval.simple_evaluate  # its decorator hides the parameters from type checkers
    manager = TaskManager(include_path=include)
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise ConfigError(
            f"tasks: lm_eval knows no task {unknown[0]}; see `lm_eval --tasks list`, or name a folder with include=…"
        )
    found = evaluate(
        model=model,
        tasks=list(tasks),
        num_fewshot=shots,
        limit=limit,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=1000,
    )
    return dict(found)
