"""What every eval is: its options as numbers, one `measure`, and what that gives back. No torch.

An eval of a package of yours is an `Eval` subclass and a file conf/eval/mine.yaml; `aptlab.testing.EvalContract`
checks it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.runs.journal import NAME, Journal
from aptlab.runs.lock import FolderLock
from aptlab.runs.progress import ProgressBar
from aptlab.runs.record import find_shape_problem

if TYPE_CHECKING:
    from aptlab.data.tokenizers import Tokenizer
    from aptlab.models import Decoder

VERSION = 1  # of prompts and sums; a change of these ends the use of older journals
QUIET = 10.0  # seconds without a line where there is no terminal
RENAMED = {"Sliding": "SlidingLoss", "Passkey": "PasskeyRetrieval", "Needle": "NeedleRetrieval"}  # in older journals

Row = Mapping[str, Any]
DrawFigure = Callable[[Path], Any]


@dataclass(frozen=True)
class Measurement:
    """What an eval has measured.

    rows     named lists of plain rows, each under its name in eval.json
    tables   text for people, in the order in which it is printed
    figures  file name -> function that draws the figure into the path it is given
    facts    further plain values of eval.json, each under its name: a stride, a note, what was read
    files    file name -> text, for tables that other programs read
    """

    rows: Mapping[str, Sequence[Row]]
    tables: Sequence[str] = ()
    figures: Mapping[str, DrawFigure] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """The network that is measured, and what an eval may use beside it.

    net              as it is; an eval leaves its mode and its device as they were
    tokenizer        that of the network
    device           where to compute: a name that torch knows
    precision        Lightning's name, such as 32-true or bf16-mixed
    trained_context  tokens of context that the network was trained with
    title            one line for figures: rule, step, context
    open_data        gives the data module; the same one however often it is called
    folder           where results go, and where a journal is kept
    run              folder of the run that trained the network; None: nobody knows
    """

    net: Decoder
    tokenizer: Tokenizer
    device: str
    precision: str
    trained_context: int
    title: str
    open_data: Callable[[], Any]
    folder: EvalFolder
    run: Path | None = None

    @contextmanager
    def borrow_network(self) -> Iterator[Decoder]:
        """The network on `device` and in eval mode; afterwards its mode and its device are what they were."""
        mode, home = self.net.training, next(self.net.parameters()).device
        try:
            yield self.net.to(self.device).eval()
        finally:
            self.net.to(home).train(mode)

    @contextmanager
    def open_journal(
        self, options: Mapping[str, Any], *, text: str | None = None, shape: Mapping[str, Any] | None = None
    ) -> Iterator[Journal]:
        """The journal of one eval, its folder locked meanwhile.

        options  what is measured, as `Eval.describe_options` says it
        text     fingerprint of the text that is read, None where none is
        shape    keys that each record has, and the types of their values

        AptlabError when another process is in the folder, or the journal belongs to another request. A request is its
        weights, position rule, options, text, tokenizer and precision; the device may change.
        """
        identity = {
            "version": VERSION,
            **self.folder.identity,
            "eval": dict(options),
            "text": text,
            "tokenizer": self.tokenizer.key(),
            "precision": self.precision,
        }
        with self.folder.open_journal(identity, shape) as journal:
            yield journal

    def open_progress(self, what: str, *, total: int, done: int = 0) -> ProgressBar:
        """A bar, or a few lines, for a measurement of `total` things; use it in a `with`."""
        return ProgressBar(what, total=total, done=done, pause=QUIET)


@dataclass(frozen=True)
class EvalFolder:
    """Where results of an eval go.

    path      a folder that exists; None: nothing is written, and a journal is kept in memory
    identity  plain values that name the weights that are measured; a journal of other weights is refused
    """

    path: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def open_journal(self, identity: Mapping[str, Any], shape: Mapping[str, Any] | None = None) -> Iterator[Journal]:
        """The journal of the folder, under its lock; AptlabError while another process is in it."""
        if self.path is None:
            yield Journal(None, identity)
            return
        lock = FolderLock.take(self.path)
        try:
            inspect = partial(find_shape_problem, shape=shape or {})
            yield Journal(self.path / NAME, strip_modules(identity), upgrade=upgrade_first_line, inspect=inspect)
        finally:
            lock.release()


@dataclass(frozen=True, kw_only=True)
class Eval(ABC):
    """A measurement of a network, an option of the group `eval`. A frozen dataclass of plain options.

    Its module imports no torch at the top, so that options are checked in an instant; `measure` imports what it needs.
    """

    name: ClassVar[str]  # a short word for titles, bars and folders
    needs_tokens: ClassVar[bool] = True  # whether it measures language models alone: it needs a tokenizer
    reads_source: ClassVar[bool] = False  # whether it measures encoder-decoders, and no model that continues a text

    @property
    def reads_data(self) -> bool:
        """Whether `measure` asks for the data module."""
        return True

    def check(self, context: EvalContext) -> None:  # noqa: B027  an eval that has nothing to check leaves it out
        """Raise what can be known before anything is measured, as a training run asks at its start."""

    @abstractmethod
    def measure(self, context: EvalContext) -> Measurement:
        """Measure `context.net`; the same context gives the same rows. Raises AptlabError for what cannot be."""

    def check_network(self, net: Any) -> None:
        """ConfigError for a network that reads sources where the eval is of texts, and the other way round."""
        if self.reads_source != getattr(net, "reads_source", False):  # a network of another package has no such word
            asked, way = (
                ("an encoder-decoder", "train one with task=seq2seq")
                if self.reads_source
                else ("a model that continues texts", "use eval=seq2seq for an encoder-decoder")
            )
            raise ConfigError(f"eval={self.name} measures {asked}, and this network is none; {way}")

    def describe_options(self) -> dict[str, Any]:
        """The class and its options as plain values, as results name them."""
        kind = type(self)
        options = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **options}


def strip_modules(value: Any) -> Any:
    """Plain values with every `_target_` cut down to package and class, so that a class may move between modules.

    >>> strip_modules({"_target_": "aptlab.evals.ruler.Ruler"})
    {'_target_': 'aptlab.Ruler'}
    """
    if isinstance(value, Mapping):
        return {key: strip_target(item) if key == "_target_" else strip_modules(item) for key, item in value.items()}
    return [strip_modules(item) for item in value] if isinstance(value, list | tuple) else value


def strip_target(target: Any) -> Any:
    """`package.Class` of a dotted name."""
    package, _, rest = str(target).partition(".")
    return f"{package}.{rest.rpartition('.')[2]}" if rest else target


def upgrade_first_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """The first line of a journal of any version, in the words of today."""
    plain = strip_modules(line)
    request = plain.get("request")
    options = (request.get("eval") if isinstance(request, dict) else None) or {}
    if not isinstance(options, dict):
        return plain
    package, _, kind = str(options.get("_target_", "")).rpartition(".")
    if package == "aptlab" and kind in RENAMED:
        options["_target_"] = f"{package}.{RENAMED[kind]}"
    return plain
