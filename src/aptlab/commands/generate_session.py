"""Load the model, write the texts, show them, keep them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.commands.generate_request import GenerateRequest
from aptlab.config import build
from aptlab.data.tokenizers import TextStream, Tokenizer, restore_tokenizer
from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint
from aptlab.runs.atomic import write_text
from aptlab.sample import GeneratedRow, StopText, generate_rows


@dataclass
class GeneratedText:
    """One text that is being written: characters show once they are whole and can no longer begin a stop string."""

    prompt: str
    seed: int
    stream: TextStream
    watch: StopText
    echo: bool
    pieces: list[str] = field(default_factory=list)

    def push(self, token: int) -> bool:
        """Take a token; true when a stop string is complete."""
        self._show(self.watch.push(self.stream.push(token)))
        return self.watch.stopped

    def finish(self) -> str:
        self._show(self.watch.finish(self.stream.finish()))
        return "".join(self.pieces)

    def _show(self, piece: str) -> None:
        self.pieces.append(piece)
        if self.echo and piece:
            print(piece, end="", flush=True)


def generate_texts(request: GenerateRequest) -> bool:
    """Write all texts; returns whether the user interrupted. stdout gets texts, stderr the status."""
    cfg = request.config.cfg
    device = build(cfg.device).torch_device
    loaded = load_network(locate_checkpoint(cfg.ckpt, root=cfg.paths.root), device=device)
    tokenizer = restore_tokenizer(loaded.tokenizer)
    warn_of_length(request, loaded, tokenizer)
    jobs = [(prompt, request.seed + sample) for prompt in request.prompts for sample in range(request.samples)]
    begun, count, records = time.perf_counter(), 0, []
    for first in range(0, len(jobs), request.batch):
        block = jobs[first : first + request.batch]
        texts, rows = generate_block(request, loaded, tokenizer, block, only=len(jobs) == 1)
        for text, row in zip(texts, rows, strict=True):
            count += len(row.tokens)
            records.append(make_record(text, row))
            if not text.echo:
                print_text(text, numbered=len(jobs) > 1)
        if any(row.reason == "interrupted" for row in rows):
            break
    interrupted = any(row["reason"] == "interrupted" for row in records)
    if request.out is not None:
        write_records(Path(request.out).expanduser(), records)
    print_summary(request, count, time.perf_counter() - begun, interrupted)
    return interrupted


def generate_block(
    request: GenerateRequest, loaded: LoadedModel, tokenizer: Tokenizer, jobs: list[tuple[str, int]], *, only: bool
) -> tuple[list[GeneratedText], list[GeneratedRow]]:
    """Texts that are written side by side. An only text shows as it comes, if the request says so."""
    echo = request.stream and only
    texts = [GeneratedText(prompt, seed, tokenizer.stream(), StopText(request.stop), echo) for prompt, seed in jobs]
    if echo:
        print(texts[0].prompt, end="", flush=True)
    rows = generate_rows(
        loaded.net,
        [encode_prompt(tokenizer, prompt) for prompt, _ in jobs],
        rules=request.rules,
        max_new_tokens=request.max_new_tokens,
        eos=tokenizer.eos,
        seed=[seed for _, seed in jobs],
        on_token=lambda row, token: texts[row].push(token),
        vocab=tokenizer.vocab_size,
    )
    for text in texts:
        text.finish()
    if echo:
        print(flush=True)
    return texts, rows


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Tokens of a prompt; an empty one is the end of the document before."""
    return tokenizer.encode(prompt) or [tokenizer.eos]


def print_text(text: GeneratedText, *, numbered: bool) -> None:
    if numbered:
        print(dim_line(f"[seed {text.seed}]", sys.stdout))
    print(text.prompt + "".join(text.pieces), end="\n\n" if numbered else "\n", flush=True)


def make_record(text: GeneratedText, row: GeneratedRow) -> dict[str, Any]:
    return {
        "prompt": text.prompt,
        "text": "".join(text.pieces),
        "tokens": row.tokens,
        "seed": text.seed,
        "reason": row.reason,
    }


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """One JSON object per line; AptlabError when the place cannot be written."""
    write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in records))


def warn_of_length(request: GenerateRequest, loaded: LoadedModel, tokenizer: Tokenizer) -> None:
    """Longer than trained is allowed, and said once."""
    context = int(loaded.config["context"])
    longest = max(len(encode_prompt(tokenizer, prompt)) for prompt in request.prompts)
    if longest + request.max_new_tokens > context:
        print_status(
            f"warning: {longest} prompt tokens + {request.max_new_tokens} new ones are more than the trained "
            f"context={context}; the text may fall apart beyond it"
        )


def print_summary(request: GenerateRequest, count: int, seconds: float, interrupted: bool) -> None:
    seeds = str(request.seed)
    if request.samples > 1:
        seeds += f" to {request.seed + request.samples - 1}"
    end = ", interrupted" if interrupted else ""
    print_status(f"{count} tokens, {count / max(seconds, 1e-9):,.0f} tokens/s, seed {seeds}{end}")


def print_status(line: str) -> None:
    print(dim_line(line, sys.stderr), file=sys.stderr, flush=True)


def dim_line(line: str, stream: Any) -> str:
    return f"\x1b[2m{line}\x1b[0m" if stream.isatty() else line
