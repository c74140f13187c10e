"""`aptlab generate`: continue prompts with a trained model, or write targets. torch comes once the request holds."""

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
from aptlab.config.overrides import split_raw_values
from aptlab.data.languages import make_language_line
from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Share
from aptlab.nn.width import format_width
from aptlab.restore.generation import TextWishes
from aptlab.restore.request import drop_data_places
from aptlab.restore.session import prepare_prompts
from aptlab.runs.atomic import write_text
from aptlab.sample import GeneratedText, Prompt, SamplingRules, skeleton_rule
from aptlab.sample.prompts import read_prompts
from aptlab.sample.screen import dim_line, format_summary, print_status, print_text
from aptlab.sample.texts import render_prompt

RAW = ("prompt", "prompts_file", "out", *skeleton_rule.RAW)  # taken as they are typed: a prompt may hold any character


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
    samples, batch, stop    texts per prompt, texts written at the same time, strings that end a text
    width               of a nested model: one number, or one for each block; None = the whole model
    draft, draft_tokens a smaller width that drafts so many tokens before the model reads them; None = none
    beams, length_penalty   of a beam search, of a model with an encoder; 1 beam = none
    languages, out      languages among which those of prompt and text are told; a .jsonl file to write
    skeleton, stream    what is kept of a session (`SkeletonRule`); show a single text while it is being written
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
    beams: PositiveInt
    length_penalty: NonNegative
    languages: list[str]
    skeleton: skeleton_rule.SkeletonRule
    out: str | None
    stream: bool

    @property
    def rules(self) -> SamplingRules:
        """How each next token is chosen."""
        return SamplingRules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SamplingRules)})

    @property
    def wishes(self) -> TextWishes:
        """What is asked for beside prompts and seeds."""
        names = [field.name for field in dataclasses.fields(TextWishes) if field.name != "widths"]
        widths = (self.width, self.draft, self.draft_tokens)
        return TextWishes(**{name: getattr(self, name) for name in names}, widths=widths)


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
    raw, args = split_raw_values(args, RAW)
    check(config := compose("generate", args))
    values = {**config.resolved(), **raw}
    if values["prompt"] is not None and values["prompts_file"]:
        raise ConfigError("prompt and prompts_file are both given; keep one of them")
    stop = [item.replace("\\n", "\n").replace("\\t", "\t") for item in values["stop"]]
    if "" in stop:
        raise ConfigError("stop: an empty string would end every text at once; leave it out")
    texts = {"prompt": values["prompt"], "out": values["out"] or None, "prompts_file": values["prompts_file"] or None}
    skeleton = skeleton_rule.replace_raw_values(build(config.cfg.skeleton), raw)
    return fill_request(GenerateRequest, config, stop=stop, skeleton=skeleton, **texts)


def write_texts(request: GenerateRequest, prompts: tuple[Prompt, ...]) -> list[GeneratedText]:
    """Print every text, the only one as it comes, and the status to stderr."""
    from aptlab.restore.load import load_network, locate_checkpoint

    cfg = request.config.cfg
    detect = make_language_line(request.languages) if request.languages else None
    model = load_network(locate_checkpoint(request.ckpt, root=cfg.paths.root), device=build(cfg.device).torch_device)
    print_status(f"ckpt {model.path}")
    prompts = prepare_prompts(model, prompts, request.skeleton, request.max_new_tokens, print_status)
    jobs = [(prompt, request.seed + sample) for prompt in prompts for sample in range(request.samples)]
    echo, texts, begun = request.stream and len(jobs) == 1, [], time.perf_counter()
    written = model.open_texts(jobs, request.wishes, (lambda _, piece: print_text(piece, end="")) if echo else None)
    for line in written.notes:
        print_status(line)
    if echo and written.continues:
        print_text(render_prompt(model.tokenizer, prompts[0]), end="")
    for text in written.texts:
        texts.append(text)
        if len(jobs) > 1:
            print(dim_line(f"[seed {text.seed}]", sys.stdout))
        whole = text if written.continues else text.text
        print_text(whole if len(jobs) > 1 or not echo else "", end="\n\n" if len(jobs) > 1 else "\n")
        if detect is not None:
            print_status(detect(text.prompt, text.text))
    print_status(format_summary(texts, request.seed, time.perf_counter() - begun))
    if written.draft is not None:
        print_status(f"draft {format_width(request.draft or 1)}: {written.draft.describe()}")
    return texts
