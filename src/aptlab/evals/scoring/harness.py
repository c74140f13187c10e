"""A checkpoint as a model of lm-evaluation-harness (Gao et al. 2021, doi:10.5281/zenodo.5371628).

Legend: B rows, L tokens of a row. `HarnessModel` holds what the three request types mean and needs no lm_eval;
`make_lm` wraps it in the class that lm_eval asks for, and `run_harness` hands it to lm_eval's evaluator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.data.tokenizers import Messages, Tokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.scoring.lengths import LOGITS, make_autocast
from aptlab.evals.scoring.requests import (
    RULES,
    GenerationSettings,
    Row,
    cut_windows,
    encode_pair,
    find_first_token,
    group_requests,
    make_request_seeds,
    parse_generation_kwargs,
    split_row,
)
from aptlab.models import Decoder
from aptlab.objectives import IGNORE, compute_token_nll
from aptlab.sample import StopText, generate_rows
from aptlab.sample.stop import cut_at_stop

log = logging.getLogger("aptlab")
MISSING = "eval=harness needs lm_eval, which is not installed; pip install 'aptlab[harness]'"
TOP_K = 50  # what transformers samples from where nobody says otherwise
Progress = Callable[[int], None]


class HarnessModel:
    """Log-likelihoods and texts of a network, for requests whose `args` are those of lm_eval's `Instance`.

    They are what lm_eval's own class for transformers models (HFLM) answers for the same weights, whatever `batch` is.

    length  tokens of context; what is longer loses its beginning, with one warning
    batch   rows at a time
    note    takes a line about what is not as asked; None: the log
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
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.net, self.tokenizer, self.length, self.batch = net, tokenizer, length, batch
        self.device, self.precision, self.progress = torch.device(device), precision, progress
        self._note, self._warned = note or log.warning, False
        net.to(self.device).eval()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """ln p(continuation | context) in nats, and whether greedy decoding would write the continuation.

        Every token of a continuation counts, of one that is longer than `length` too.
        """
        rows = [encode_pair(self.tokenizer, *request.args) for request in requests]
        for tokens, _ in rows:
            self._warn_if_longer(len(tokens), self.length + 1)
        return self._score_in_parts([split_row(row, self.length) for row in rows])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """ln p(text) in nats; the first token follows bos, or an end-of-text token.

        A text longer than `length` is cut into windows that share no target, each with as much before its targets as
        it has room for. A tokenizer that puts bos in front of texts makes it a target too, as in HFLM.
        """
        first = find_first_token(self.tokenizer)
        texts = [self.tokenizer.encode_text(request.args[0]) for request in requests]
        return [nats for nats, _ in self._score_in_parts([[*cut_windows(t, first, self.length)] for t in texts])]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Texts that follow the contexts, up to the first stop string, which is left out.

        A stop string may be in the name of a special token: the text ends there, and shows no special tokens.
        What a task does not say of sampling, the model's generation_config.json does. The random numbers of a text
        belong to its request. AptlabError where a task wants as many tokens as there is context.
        """
        out = [""] * len(requests)
        asked = [(request.args[0], request.args[1]) for request in requests]
        settings = [self._read_settings(kwargs) for _, kwargs in asked]
        seeds = make_request_seeds(asked)
        for group in group_requests(settings):
            for first in range(0, len(group), self.batch):
                block = group[first : first + self.batch]
                contexts, numbers = [asked[i][0] for i in block], [seeds[i] for i in block]
                for index, text in zip(block, self._texts(contexts, settings[block[0]], numbers)):
                    out[index] = text
                self.report_progress(len(block))
        return out

    def _read_settings(self, kwargs: Mapping[str, Any]) -> GenerationSettings:
        said = {name: self.tokenizer.generation_defaults.get(name) for name in RULES}
        settings = parse_generation_kwargs(kwargs, {"top_k": TOP_K} | {k: v for k, v in said.items() if v is not None})
        if settings.new_tokens >= self.length:
            raise AptlabError(
                f"the task asks for {settings.new_tokens} new tokens, and length={self.length} leaves none for its "
                f"prompt; set max_gen_toks={self.length // 2} or length={2 * settings.new_tokens}"
            )
        return settings

    def _score_in_parts(self, cut: Sequence[Sequence[Row]]) -> list[tuple[float, bool]]:
        """One answer for the rows of each request: the sum, and whether all targets are the likeliest."""
        scored = iter(self._scored([row for rows in cut for row in rows]))
        found = [[next(scored) for _ in rows] for rows in cut]
        return [(sum(nats for nats, _ in parts), all(greedy for _, greedy in parts)) for parts in found]

    def _scored(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """Rows of similar length are read together; the answers come in the order of the rows."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        out = [(0.0, True)] * len(rows)
        for first in range(0, len(order), self.batch):
            block = order[first : first + self.batch]
            for index, answer in zip(block, self._batch([rows[i] for i in block])):
                out[index] = answer
            self.report_progress(len(block))
        return out

    @torch.inference_mode()
    def _batch(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
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

    def _texts(self, contexts: Sequence[str], settings: GenerationSettings, seeds: list[int]) -> list[str]:
        room = self.length - settings.new_tokens
        prompts = [self.tokenizer.encode_prompt(text) for text in contexts]
        for prompt in prompts:
            self._warn_if_longer(len(prompt), room)
        prompts = [prompt[-room:] for prompt in prompts]
        until = (*settings.until, self.tokenizer.eos_name)
        streams = [self.tokenizer.stream(specials=True) for _ in prompts]
        watches = [StopText(until) for _ in prompts]

        def on_token(row: int, token: int) -> bool:
            watches[row].push(streams[row].push(token))
            return watches[row].stopped

        with make_autocast(self.device, self.precision):
            rows = generate_rows(
                self.net,
                prompts,
                rules=settings.rules,
                max_new_tokens=settings.new_tokens,
                eos=self.tokenizer.stops,
                seed=seeds,
                on_token=on_token,
                vocab=self.tokenizer.vocab_size,
            )
        return [cut_at_stop(self.tokenizer.decode(row.tokens), until) for row in rows]

    def _warn_if_longer(self, have: int, most: int) -> None:
        if have > most and not self._warned:
            self._warned = True
            longer = f"texts of more than {self.length} tokens lose their beginning (the first had {have})"
            self._note(f"{longer}; set length=…")

    def report_progress(self, count: int) -> None:
        if self.progress is not None:
            self.progress(count)


def make_lm(answers: HarnessModel) -> Any:
    """An object of lm_eval's class `LM` that passes every request to `answers`. ConfigError without lm_eval."""
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise ConfigError(MISSING) from error

    def passed(name: str) -> Callable[..., Any]:
        return lambda self, requests, *args, **kwargs: getattr(answers, name)(requests)

    def write_chat(self: Any, chat_history: Messages, add_generation_prompt: bool = True) -> str:
        return answers.tokenizer.render_chat(chat_history, reply=add_generation_prompt)

    names = ("loglikelihood", "loglikelihood_rolling", "generate_until")
    chat = {
        "apply_chat_template": write_chat,
        "chat_template": lambda self, chat_template=False: answers.tokenizer.chat_template,
        "tokenizer_name": property(lambda self: answers.tokenizer.key()),
    }
    return type("AptlabLM", (LM,), {**{name: passed(name) for name in names}, **chat})()


def run_harness(
    answers: HarnessModel,
    tasks: Sequence[str],
    *,
    include: str | None = None,
    shots: int | None = None,
    limit: int | None = None,
    max_gen_toks: int | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """lm_eval's result for some of its tasks: `results`, `versions`, `n-samples`, … as lm_eval names them.

    include       a folder with task files
    max_gen_toks  of every text, in place of what its task says
    chat          write prompts by the tokenizer's chat template

    ConfigError without lm_eval, for a task that it does not know, and for `chat` where there is no template.
    """
    model = make_lm(answers)
    if chat and answers.tokenizer.chat_template is None:
        raise ConfigError("chat=true: this tokenizer has no chat template; use chat=false, or import a chat model")
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
        gen_kwargs=None if max_gen_toks is None else {"max_gen_toks": max_gen_toks},
        apply_chat_template=chat,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=1000,
    )
    return dict(found)
