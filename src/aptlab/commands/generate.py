"""`aptlab generate`: continue prompts with a trained model. torch is imported once the request holds."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aptlab.config import Config, build, check, compose, fill_request
from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Share
from aptlab.nn.width import format_width
from aptlab.restore.request import drop_data_places
from aptlab.runs.atomic import write_text
from aptlab.sample import GeneratedText, Prompt, SamplingRules, encode_prompt, generate_texts
from aptlab.sample.prompts import read_prompts
from aptlab.sample.screen import dim_line, format_summary, print_status, print_text
from aptlab.sample.texts import render_prompt

RAW = ("prompt", "prompts_file", "out")  # taken as they are typed: a prompt may hold any character


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What `aptlab generate` is asked for.

    config              the composed configuration, with its groups
    ckpt                last, best, a checkpoint or a run folder
    prompt              a text; - reads stdin; None or empty starts a new document
    chat                prompts are what a user says; the model's chat template makes the text, and the model answers
    prompts_file        .txt: one prompt per line; .jsonl: the field `prompt`, or `messages`, of every line
    max_new_tokens      per text; it may end earlier, at the end-of-text token or a stop string
    temperature, top_k, top_p, min_p, repetition_penalty, crossing    see SamplingRules
    seed                of the first sample of each prompt; the next samples count on from it
    samples             texts per prompt
    stop                strings that end a text
    batch               texts written at the same time
    width               of a nested model: one number, or one for each block; None = the whole model
    draft               a smaller width that drafts tokens; None = none
    draft_tokens        tokens that it drafts before the model reads them
    out                 a .jsonl file to write
    stream              show a single text while it is being written
    """

    config: Config
    ckpt: str
    prompt: str | None
    chat: bool
    prompts_file: str | None
    max_new_tokens: PositiveInt
    temperature: NonNegative
    top_k: NonNegativeInt
    top_p: Fraction
    min_p: Fraction
    repetition_penalty: Positive
    crossing: Literal["admit", "reprefill", "rerotate", "error"]
    seed: NonNegativeInt
    samples: PositiveInt
    stop: list[str]
    batch: PositiveInt
    width: Share | list[Share] | None
    draft: Share | list[Share] | None
    draft_tokens: PositiveInt
    out: str | None
    stream: bool

    @property
    def rules(self) -> SamplingRules:
        """How each next token is chosen."""
        return SamplingRules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SamplingRules)})


def run(args: list[str]) -> int:
    """Exit code 0; 130 when interrupted, after the text so far. A reader that closes the pipe ends it quietly."""
    request = read_generate_request(drop_data_places(args, "generate"))
    prompts = read_prompts(request.prompt, request.prompts_file, chat=request.chat)
    try:
        texts = write_texts(request, prompts)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter's last flush goes nowhere, so that it does not complain about the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if request.out is not None:
        lines = (json.dumps(dataclasses.asdict(text), ensure_ascii=False) + "\n" for text in texts)
        write_text(Path(request.out).expanduser(), "".join(lines))
    return 130 if any(text.reason == "interrupted" for text in texts) else 0


def read_generate_request(args: list[str]) -> GenerateRequest:
    """The request of a command line; ConfigError lists every problem."""
    pairs = [arg.partition("=") for arg in args]
    raw = {key: None if value == "null" else value for key, sign, value in pairs if sign and key in RAW}
    config = compose("generate", [arg for arg in args if "=" not in arg or arg.partition("=")[0] not in RAW])
    check(config)
    values = {**config.resolved(), **raw}
    if values["prompt"] is not None and values["prompts_file"]:
        raise ConfigError("prompt and prompts_file are both given; keep one of them")
    stop = [item.replace("\\n", "\n").replace("\\t", "\t") for item in values["stop"]]
    if "" in stop:
        raise ConfigError("stop: an empty string would end every text at once; leave it out")
    texts = {"prompt": values["prompt"], "out": values["out"] or None, "prompts_file": values["prompts_file"] or None}
    return fill_request(GenerateRequest, config, stop=stop, **texts)


def write_texts(request: GenerateRequest, prompts: tuple[Prompt, ...]) -> list[GeneratedText]:
    """Print every text, the only one as it comes, and the status to stderr."""
    from aptlab.restore.load import find_length_warning, load_network, locate_checkpoint, open_widths
    from aptlab.sample.loop import check_prompts

    cfg = request.config.cfg
    device = build(cfg.device).torch_device
    whole = load_network(locate_checkpoint(request.ckpt, root=cfg.paths.root), device=device)
    print_status(f"ckpt {whole.path}")
    model, draft = open_widths(whole, request.width, request.draft, request.draft_tokens)
    check_prompts([encode_prompt(model.tokenizer, text) for text in prompts], model.net, request.max_new_tokens)
    if warning := find_length_warning(model, prompts, request.max_new_tokens):
        print_status(f"warning: {warning}")
    jobs = [(prompt, request.seed + sample) for prompt in prompts for sample in range(request.samples)]
    echo, texts, begun = request.stream and len(jobs) == 1, [], time.perf_counter()
    if echo:
        print_text(render_prompt(model.tokenizer, prompts[0]), end="")
    for text in generate_texts(
        model.net,
        model.tokenizer,
        [prompt for prompt, _ in jobs],
        rules=request.rules,
        max_new_tokens=request.max_new_tokens,
        seeds=[seed for _, seed in jobs],
        stop=request.stop,
        batch=request.batch,
        on_text=(lambda _, piece: print_text(piece, end="")) if echo else None,
        draft=draft,
    ):
        texts.append(text)
        if len(jobs) > 1:
            print(dim_line(f"[seed {text.seed}]", sys.stdout))
            print_text(text, end="\n\n")
        else:
            print_text("" if echo else text)
    print_status(format_summary(texts, request.seed, time.perf_counter() - begun))
    if draft is not None:
        print_status(f"draft {format_width(request.draft or 1)}: {draft.describe()}")
    return texts
