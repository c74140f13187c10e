"""How a split is made of the documents that there are: by whole documents where that comes near, else inside them.

The plan of a text is a pure function of its documents and of the `Split`, whatever their order and names; finding it
reads every document once, so it is kept in the cache folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aptlab.data.store.split import DIGESTS, Split
from aptlab.data.store.tails import cut_tail
from aptlab.errors import AptlabError, DataError
from aptlab.runs.record import find_shape_problem, read_record, write_json_record
from aptlab.shown import count_nouns

TAIL = 1 << 14  # bytes, about: a document whose share is at least this gives a tail of its own
PIECE = 1 << 10  # bytes: no document is cut for less, where there are others
SMALLEST = 2  # bytes of text that can be split at all
VERSION = 1
log = logging.getLogger("aptlab")


@dataclass(frozen=True, kw_only=True)
class Tails:
    """A split inside documents.

    large      documents whose last `val_fraction` is held back
    small      the others, of which those are held back whole whose hash is below `threshold`
    threshold  hash of the document that is cut, so that the share of the small ones comes out, or the end of all
    cut        share of that document that is held back, its last bytes
    """

    large: int = 0
    small: int = 0
    threshold: int = DIGESTS
    cut: float = 0.0

    def describe_held_part(self, share: str) -> str:
        """What is validated on, where `share` of the text was asked for.

        >>> Tails(small=1).describe_held_part("5 %")
        'the last 5 % of the text (one document)'
        """
        if self.large + self.small == 1:
            return f"the last {share} of the text (one document)"
        if not self.small:
            return f"the last {share} of each of {count_nouns(self.large, 'document')}"
        if not self.large:
            return f"{share} of the text, of {self.small:,} documents some whole and the end of one"
        large = f"each of {self.large:,} large documents" if self.large > 1 else "the large document"
        small = f"the {self.small:,} small ones" if self.small > 1 else "the small one"
        return f"the last {share} of {large}, and {share} of {small}"


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The split of one text.

    split  what was asked for
    share  of the bytes that whole documents would put on the validation side
    blank  documents of white space only, which are on neither side
    tails  where documents are split inside; None: whole documents
    """

    split: Split
    share: float
    blank: int = 0
    tails: Tails | None = None

    @property
    def val_fraction(self) -> float:
        return self.split.val_fraction

    def divide(self, text: str) -> tuple[str, str]:
        """The part of a document that is trained on and the part that is validated on; blank ones have neither."""
        if self.blank and text.isspace():
            return "", ""
        if self.tails is None:
            return self.split.divide(text)
        if is_large(len(text.encode("utf-8", "surrogatepass")), self.val_fraction):
            return cut_tail(text, self.val_fraction)
        digest = self.split.hash_text(text)
        if digest == self.tails.threshold and self.tails.cut:
            return cut_tail(text, self.tails.cut)
        return ("", text) if digest < self.tails.threshold else (text, "")

    def key(self) -> str:
        """What decides the content of a cache; that of the split alone where whole documents do."""
        words = [self.split.key(), *(["tails-1"] if self.tails else []), *(["no-blank"] if self.blank else [])]
        return ":".join(words)

    @property
    def name(self) -> str:
        """What a result says about the split."""
        return "inside documents" if self.tails else "by documents"

    def list_notes(self) -> Iterator[str]:
        """A line for everything that is not as a reader of the configuration would expect it."""
        if self.blank:
            yield f"left out {count_nouns(self.blank, 'document')} of white space only"
        if self.tails is not None:
            yield f"validation: {self.tails.describe_held_part(f'{100 * self.val_fraction:.3g} %')}"


def is_large(size: int, val_fraction: float) -> bool:
    """Whether a document of so many bytes gives a tail of its own."""
    return size * val_fraction >= TAIL


def is_near(share: float, val_fraction: float) -> bool:
    """Whether a share is near enough to what was asked: from half to one and a half of it, for both sides."""
    low, high = val_fraction / 2, 1 - (1 - val_fraction) / 2
    return low <= share <= min(1.5 * val_fraction, high)


def plan_split(split: Split, texts: Iterable[str]) -> SplitPlan:
    """Read all documents once; whole documents where their bytes come near `val_fraction`, else `Tails`.

    Large documents each give their last part, cut at a paragraph, a line or a space near, else at a character. Small
    ones are taken whole in the order of their hashes until the share is reached, and the last of them is cut. So every
    held-out part is one unbroken stretch, the end of a document, and equal documents are split alike.
    Raises DataError for a text that is too short for two sides. With `split.inside` false it is whole documents always.
    """
    digests, sizes, blank = array("Q"), array("Q"), 0
    for text in texts:
        if text.isspace():
            blank += 1
            continue
        digests.append(split.hash_text(text))
        sizes.append(len(text.encode("utf-8", "surrogatepass")))
    total = sum(sizes)
    if not sizes:
        raise DataError("the source has no document; give it files with text")
    if total < SMALLEST:
        raise DataError(f"the source has {total} bytes of text, too few to train and to validate on; give it more text")
    held = sum(size for digest, size in zip(digests, sizes) if digest < split.val_fraction * DIGESTS)
    plan = SplitPlan(split=split, share=held / total, blank=blank)
    if is_near(plan.share, split.val_fraction) or not split.inside:
        return plan
    return dataclasses.replace(plan, tails=find_tails(digests, sizes, split.val_fraction))


def find_tails(digests: Iterable[int], sizes: Iterable[int], val_fraction: float) -> Tails:
    """The split inside documents of the given hashes and sizes in bytes."""
    pairs = list(zip(digests, sizes))
    small = sorted(pair for pair in pairs if not is_large(pair[1], val_fraction))
    counts = {"large": len(pairs) - len(small), "small": len(small)}
    left = val_fraction * sum(size for _, size in small)
    for digest, group in itertools.groupby(small, key=lambda pair: pair[0]):
        size = sum(size for _, size in group)
        if size > left:
            alone = digest == small[0][0] and not counts["large"]
            return Tails(**counts, threshold=digest, cut=left / size if alone or left >= PIECE else 0.0)
        left -= size
    return Tails(**counts)


def open_or_make_plan(split: Split, texts: Iterable[str], *, folder: Path, key: str) -> SplitPlan:
    """The plan of the text that `key` names, read from `folder`, or found now and kept there."""
    digest = hashlib.sha256(f"{VERSION}:{key}:{split.key()}:{split.inside}".encode()).hexdigest()
    path = folder / f"{digest[:32]}.json"
    known = read_kept_plan(split, path)
    if known is not None:
        return known
    plan = plan_split(split, texts)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"share": plan.share, "blank": plan.blank, "tails": plan.tails and dataclasses.asdict(plan.tails)}
    write_json_record(path, kept, way_out="free some space, or name another folder with data.cache=…")
    return plan


def read_kept_plan(split: Split, path: Path) -> SplitPlan | None:
    """The plan in a file of the cache; None where there is none, or it is damaged, which is said in the log.

    One of an earlier version has no checksum, and is found again.
    """
    shape = {"share": (int, float), "blank": int, "tails": (dict, type(None))}
    numbers = {"large": int, "small": int, "threshold": int, "cut": (int, float)}
    try:
        found, sealed = read_record(path, dict)
        problem = find_shape_problem(found, shape) or (found["tails"] and find_shape_problem(found["tails"], numbers))
        if problem:
            raise DataError(f"{path}: {problem}")
    except FileNotFoundError:
        return None
    except AptlabError as error:
        log.warning("the split of the text is found again: %s", error)
        return None
    if not sealed:
        log.info("the split of the text is found again, for %s is of an earlier version, without a checksum", path)
        return None
    tails = found["tails"] and Tails(**{name: found["tails"][name] for name in numbers})
    return SplitPlan(split=split, share=found["share"], blank=found["blank"], tails=tails)
