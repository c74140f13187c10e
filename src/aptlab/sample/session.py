"""A session with a skeleton: what is said of it and what is read become soft tokens in front of the prompts.

Legend: T tokens, P soft tokens, C dim.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from aptlab.checkpoint.skeleton import load_skeleton, refuse_foreign_manifest, save_skeleton
from aptlab.data.tokenizers import Tokenizer
from aptlab.models import Decoder
from aptlab.models.strengths import measure_strengths
from aptlab.nn.skeleton import Skeleton, measure_rms
from aptlab.sample.skeleton_rule import SkeletonRule
from aptlab.sample.texts import Prompt, SoftPrompt, encode_prompt, render_prompt

NAMED_ROWS = 64  # of the embedding, whose hash says which network a skeleton belongs to


@dataclass
class SkeletonSession:
    """A skeleton, the network that reads it, and what a session says.

    Fields that a text is given for hold the mean of its states, read alone. Beside them, `topic` follows the prompts,
    unless a text is given for it, and `spike_regions` the strongest tokens of them by the network's own smoothing.
    Every prompt is read behind the skeleton as it was when `prepare` was called, so that no text depends on its batch;
    the windows of one prompt follow each other. What they leave in the skeleton is taken in the order of the prompts.
    """

    rule: SkeletonRule
    net: Decoder
    tokenizer: Tokenizer
    skeleton: Skeleton
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rms = measure_rms(self.net.embed.weight)

    def add_texts(self) -> None:
        """Read what is said of the session into its fields."""
        for name, text in self.rule.texts.given.items():
            states_TC, _ = self._read(self.tokenizer.encode(text), self.skeleton.prefix(self.rms)[:0])
            self.skeleton.update_field(name, states_TC, self.rule.momentum)

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with soft tokens in front; the skeleton then knows them too."""
        prepared: list[Prompt] = []
        learned: list[tuple[str, Tensor]] = []
        for prompt in prompts:
            text, ids = render_prompt(self.tokenizer, prompt), encode_prompt(self.tokenizer, prompt)
            windows = split_windows(ids, self.rule.window)
            carried = copy.deepcopy(self.skeleton)
            for number, window in enumerate(windows):
                prefix_PC = carried.prefix(self.rms)
                for name, states in self._learn(window, prefix_PC) if text else ():
                    carried.update_field(name, states, self.rule.momentum)
                    learned.append((name, states))
                if number + 1 == len(windows):
                    prepared.append(SoftPrompt(text, window, prefix_PC))
            if len(windows) > 1:
                self.notes.append(
                    f"skeleton: {len(ids):,} prompt tokens are {len(windows)} windows of {self.rule.window}; the text "
                    "goes on from the last, and of those before only the skeleton stays"
                )
        for name, states in learned:
            self.skeleton.update_field(name, states, self.rule.momentum)
        return prepared

    def save(self) -> None:
        """Write the skeleton where it is kept, if it is; CheckpointError where it cannot be written."""
        if self.rule.file is not None:
            save_skeleton(self.skeleton, Path(self.rule.file).expanduser())
        place = self.rule.file or "no file"
        self.notes.append(f"skeleton: {', '.join(self.skeleton.filled) or 'no field holds anything'} -> {place}")

    def _learn(self, ids: Sequence[int], prefix_PC: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(field, states [T, C]) of what a window of a prompt says."""
        states_TC, strength_T = self._read(ids, prefix_PC)
        if "topic" not in self.rule.texts.given:
            yield "topic", states_TC
        if strength_T is not None and "spike_regions" not in self.rule.texts.given:
            yield "spike_regions", states_TC[strength_T.topk(math.ceil(self.rule.spikes * len(ids))).indices]

    def _read(self, ids: Sequence[int], prefix_PC: Tensor) -> tuple[Tensor, Tensor | None]:
        """States behind the last norm, [T, C], and strengths, [T], of tokens behind soft ones."""
        tokens_1T = torch.tensor([list(ids)], device=self.net.embed.weight.device)
        with torch.no_grad():
            embeds_1TC = self.net.embed_tokens(tokens_1T, None)
            embeds_1TC = torch.cat((prefix_PC.to(embeds_1TC).unsqueeze(0), embeds_1TC), 1)
            hidden, strength_1T = measure_strengths(self.net, embeds=embeds_1TC)
        soft = len(prefix_PC)
        return hidden.hidden[0, soft:], None if strength_1T is None else strength_1T[0, soft:]


def open_session(rule: SkeletonRule, net: Decoder, tokenizer: Tokenizer) -> SkeletonSession:
    """The session of a rule's file, or a new one, with what is said of it in its fields.

    CheckpointError for a file that is damaged, no skeleton, or one of a network of another width.
    """
    path = None if rule.file is None else refuse_foreign_manifest(Path(rule.file).expanduser())
    notes, name = [], name_embedding(net)
    if path is not None and (path.exists() or path.is_symlink()):
        skeleton = load_skeleton(path, dim=net.shape.dim)
        notes.append(f"skeleton: {', '.join(skeleton.filled) or 'no field holds anything'} <- {rule.file}")
        if skeleton.embedding not in ("", name):
            notes.append("warning: the skeleton was written with other weights, and may mean nothing to these")
        if skeleton.compression != rule.compress:
            notes.append(f"skeleton: compress={skeleton.compression} is that of the file")
    else:
        skeleton = Skeleton(net.shape.dim, compression=rule.compress)
        if rule.compress == "linear":
            skeleton.fit_compression(net.embed.weight)
    skeleton.embedding = name
    session = SkeletonSession(rule, net, tokenizer, skeleton.to(net.embed.weight.device), notes)
    session.add_texts()
    if measure_strengths(net, tokens=torch.zeros(1, 1, dtype=torch.long, device=net.embed.weight.device))[1] is None:
        notes.append(
            "skeleton: spike_regions stays as it was: no site of the model measures strength (smooth=left_spin)"
        )
    return session


def split_windows(ids: Sequence[int], window: int | None) -> list[list[int]]:
    """Tokens in windows: the last holds `window` of them, those before are cut from the front.

    >>> split_windows([1, 2, 3, 4, 5], 2)
    [[1, 2], [3], [4, 5]]
    """
    if window is None or len(ids) <= window:
        return [list(ids)]
    before = list(ids[:-window])
    return [*(before[begin : begin + window] for begin in range(0, len(before), window)), list(ids[-window:])]


def name_embedding(net: Decoder) -> str:
    """What tells one trained embedding from another: the sha256 of its first rows in float32."""
    rows = net.embed.weight[:NAMED_ROWS].detach().cpu().float().contiguous()
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()
