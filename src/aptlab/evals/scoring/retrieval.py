"""What a network answers to samples of `evals.tasks`. Legend: B rows, T tokens, A answer tokens, V vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aptlab.data.tokenizers import Tokenizer
from aptlab.errors import AptlabError
from aptlab.evals.scoring.lengths import ELSEWHERE, LOGITS, TOKENS, make_autocast
from aptlab.evals.tasks.sample import TaskSample
from aptlab.models import Decoder
from aptlab.nn.attention.cache import KVCache
from aptlab.objectives import compute_token_nll
from aptlab.sample.logits import BAD, apply_rules, draw_tokens
from aptlab.sample.rules import SamplingRules

GREEDY = SamplingRules(temperature=0)
MASK = 2**26  # queries times keys of one piece of a prompt, as a boolean mask holds them: 64 MiB


@dataclass(frozen=True)
class SampleOutcome:
    """One answered sample.

    score           share of the answers found in the generated text ("all"), or 1 if any is ("part"), as in RULER
    token_accuracy  share of the expected answer's tokens that are the likeliest after the right ones before them
    loss            nats per token of the expected answer; `nats` is their sum over its `tokens` tokens
    """

    task: str
    length: int
    asked_depth: float | None
    index: int
    depth: float | None
    score: float
    token_accuracy: float
    loss: float
    nats: float
    tokens: int
    generated: str
    answers: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def answer_samples(
    net: Decoder,
    samples: Sequence[TaskSample],
    *,
    tokenizer: Tokenizer,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
) -> Iterator[SampleOutcome]:
    """Outcomes in the order of the samples, which have prompts of one length and one budget.

    Each prompt is read once, in pieces through the cache, so that neither its logits nor its attention mask is ever
    whole in memory. From there the expected answer is read, and a text is generated greedily, up to the budget or an
    end-of-text token. Raises AptlabError for logits that are not numbers.
    """
    device = torch.device(device)
    net.to(device)
    mode = net.training
    net.eval()
    try:
        for batch in split_batches(samples, device):
            with torch.inference_mode(), make_autocast(device, precision):
                outcomes = answer_batch(net, batch, tokenizer, device)
            yield from outcomes
    finally:
        net.train(mode)


def split_batches(samples: Sequence[TaskSample], device: torch.device) -> Iterator[Sequence[TaskSample]]:
    """As many rows as the device takes tokens at a time, at least one."""
    if not samples:
        return
    assert len({(len(sample.tokens), sample.budget) for sample in samples}) == 1
    rows = max(1, TOKENS.get(device.type, ELSEWHERE) // samples[0].length)
    for first in range(0, len(samples), rows):
        yield samples[first : first + rows]


def answer_batch(
    net: Decoder, samples: Sequence[TaskSample], tokenizer: Tokenizer, device: torch.device
) -> Iterator[SampleOutcome]:
    """The outcomes of rows that are read side by side."""
    prompts_BT = torch.tensor([sample.tokens for sample in samples], device=device)
    cache = net.new_cache(len(samples), samples[0].length)
    last_BV = read_prompt(net, prompts_BT, cache)
    nats_BA, right_BA = score_expected_tokens(net, last_BV, [sample.answer for sample in samples], copy.deepcopy(cache))
    texts = generate_greedy(net, last_BV, cache, tokenizer, samples[0].budget)
    outcomes = []
    for row, (sample, text) in enumerate(zip(samples, texts, strict=True)):
        count = len(sample.answer)
        nats = float(nats_BA[row, :count].sum())
        outcomes.append(
            SampleOutcome(
                task=sample.task,
                length=sample.length,
                asked_depth=sample.meta.get("asked_depth"),
                index=sample.meta["index"],
                depth=sample.depth,
                score=score_text(text, sample.answers, sample.match),
                token_accuracy=float(right_BA[row, :count].double().mean()),
                loss=nats / count,
                nats=nats,
                tokens=count,
                generated=text,
                answers=sample.answers,
            )
        )
    return iter(outcomes)


def read_prompt(net: Decoder, tokens_BT: Tensor, cache: KVCache) -> Tensor:
    """Put a prompt into the cache, a piece at a time; returns the logits after its last token, [B, V]."""
    rows, length = tokens_BT.shape
    step = max(1, min(LOGITS // net.vocab, MASK // length) // rows)
    logits = None
    for piece_BT in tokens_BT.split(step, dim=1):
        logits = net(piece_BT, cache=cache).logits[:, -1]
    assert logits is not None
    return logits


def score_expected_tokens(
    net: Decoder, last_BV: Tensor, answers: Sequence[Sequence[int]], cache: KVCache
) -> tuple[Tensor, Tensor]:
    """-ln p of each token of the expected answers, float64 [B, A], and whether it is the likeliest, bool [B, A].

    Shorter answers are filled up at their end, where the numbers mean nothing.
    """
    longest = max(map(len, answers))
    filled = [list(tokens) + [tokens[-1]] * (longest - len(tokens)) for tokens in answers]
    answer_BA = torch.tensor(filled, device=last_BV.device)
    logits_BAV = last_BV.unsqueeze(1)
    if longest > 1:
        logits_BAV = torch.cat([logits_BAV, net(answer_BA[:, :-1], cache=cache).logits], dim=1)
    loss_BA = compute_token_nll(logits_BAV, answer_BA, "none")
    return loss_BA.double().cpu(), (logits_BAV.argmax(-1) == answer_BA).cpu()


def generate_greedy(net: Decoder, last_BV: Tensor, cache: KVCache, tokenizer: Tokenizer, budget: int) -> list[str]:
    """The greedy continuation of each row, as `aptlab.sample.generate_tokens` writes it after a prompt read whole."""
    vocab, ends = min(tokenizer.vocab_size, net.vocab), frozenset(tokenizer.stops)
    rows: list[list[int]] = [[] for _ in range(len(last_BV))]
    ended = [False] * len(rows)
    for step in range(budget):
        logits_BV = apply_rules(GREEDY, last_BV[:, :vocab])
        chosen_B = draw_tokens(GREEDY, logits_BV, logits_BV[:, 0])
        for row, token in enumerate(chosen_B.tolist()):
            if token == BAD:
                raise AptlabError(
                    f"the model's logits are not finite {step} tokens after a prompt; a rope= in place of the trained "
                    "one may not reach this length, else training was broken off: use an earlier checkpoint"
                )
            ended[row] = ended[row] or token in ends
            if not ended[row]:
                rows[row].append(token)
        if all(ended) or step + 1 == budget:
            break
        last_BV = net(chosen_B.unsqueeze(1), cache=cache).logits[:, -1]
    return [tokenizer.decode(tokens) for tokens in rows]


def score_text(text: str, answers: Sequence[str], match: Literal["all", "part"]) -> float:
    """Answers in the text, whatever the case: their share, or 1 when one is there (RULER, `string_match_all/part`).

    >>> score_text("It is Kasodu.", ("kasodu", "Lima"), "all")
    0.5
    """
    found = [answer.lower() in text.lower() for answer in answers]
    return float(any(found)) if match == "part" else sum(found) / len(found)


def summarize_grid(outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per task, length and depth asked for: samples, mean score with its 95 % interval, answer statistics.

    The interval is Wilson's; see `compute_wilson_interval`. `loss` weighs every answer token alike.
    """
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        cells.setdefault((outcome["task"], outcome["length"], outcome["asked_depth"]), []).append(outcome)
    return [
        {"task": task, "length": length, "depth": depth, **average_outcomes(members)}
        for (task, length, depth), members in cells.items()
    ]


def average_outcomes(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean score with interval, token accuracy and loss of some outcomes."""
    n = len(outcomes)
    mean = sum(outcome["score"] for outcome in outcomes) / n
    low, high = compute_wilson_interval(mean, n)
    return {
        "samples": n,
        "score": mean,
        "low": low,
        "high": high,
        "token_accuracy": sum(outcome["token_accuracy"] for outcome in outcomes) / n,
        "loss": sum(outcome["nats"] for outcome in outcomes) / sum(outcome["tokens"] for outcome in outcomes),
    }


def compute_wilson_interval(mean: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n). A score between 0 and 1 varies less than a coin of the same
    mean, so for partial scores the interval is wide rather than narrow.

    >>> [round(end, 4) for end in compute_wilson_interval(0.5, 10)]
    [0.2366, 0.7634]
    """
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (max(mean * (1 - mean), 0.0) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
