"""Networks that learn classes task by task. Legend: B rows, C dim, K classes of all tasks."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import PositiveInt
from aptlab.models.classifier import RowClassifier
from aptlab.models.output import GrowingOutput
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext
from aptlab.nn.norm import Norm
from aptlab.nn.positions import Positions
from aptlab.nn.shape import Shape

UNKNOWN = -1e4  # logit of a class that is not there yet: no probability in any precision, and still a finite loss


class TaskHead(nn.Module):
    """Norm and matrix: the logits of a task's classes from its own embedding, [B, C] -> [B, n]."""

    def __init__(self, dim: int, classes: int, *, norm: Callable[..., Norm]) -> None:
        super().__init__()
        self.norm, self.matrix = norm(dim), nn.Linear(dim, classes)

    def forward(self, e_BC: Tensor) -> Tensor:
        return self.matrix(self.norm(e_BC))


class GrowingClassifier(RowClassifier):
    """A classifier whose tasks come one after another, each with parts and classes of its own beside a shared encoder.

    The parts of all tasks are there from the start, and a number says how many tasks are known: so an optimizer, a
    checkpoint and all ranks have the same weights at every step. What is not known has no part in any output, and
    what is frozen or not known yet is named by `list_frozen`: its gradients are dropped before a step
    (`aptlab.callbacks.growth`).

    Task t has the classes that `bind_tasks` says; before that, those from t K / tasks on. The first task is known.
    """

    known_tasks: Tensor
    order: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        classes: PositiveInt,
        tasks: PositiveInt,
        inputs: Callable[..., Any],
        block: Callable[..., Block],
        norm: Callable[..., Norm],
        positions: Positions | None = None,
    ) -> None:
        super().__init__(shape, classes=classes, inputs=inputs, block=block, norm=norm, positions=positions)
        if classes < tasks:
            raise ConfigError(f"tasks={tasks} leaves a task without a class, of {classes}; use fewer")
        cuts = [classes * task // tasks for task in range(tasks + 1)]
        self.sizes = [end - begin for begin, end in itertools.pairwise(cuts)]
        self.known, self.first = 1, 0  # tasks that there are; the first of them that is being learned
        self.register_buffer("known_tasks", torch.tensor([1, 0]))
        self.register_buffer("order", torch.arange(classes))  # classes in the order in which tasks bring them
        self.register_load_state_dict_post_hook(read_known_tasks)

    def bind_tasks(self, tasks: Sequence[Sequence[int]] | None) -> None:
        """Take the classes of each task. ConfigError where they are not those that the network was built for."""
        name = type(self).__name__
        if tasks is None:
            raise ConfigError(
                f"net: {name} learns classes task by task, and the tasks of these data have none of their own; choose "
                "scenario=split_digits"
            )
        sizes = [len(classes) for classes in tasks]
        if sizes != self.sizes:
            raise ConfigError(
                f"net: {name} has {self.sizes} classes in its tasks, and the data have {sizes}; set "
                f"model.tasks={len(sizes)} model.classes={sum(sizes)}"
            )
        order = torch.tensor([number for classes in tasks for number in classes])
        self.order.copy_(order)

    def add_task(self) -> None:
        """Bring the next task's classes; those before it are frozen. No output of an older class changes."""
        if self.known == len(self.sizes):
            raise AptlabError(f"all {self.known} tasks are known; build the network with more (model.tasks)")
        self.set_known(self.known + 1, first=self.known)

    def set_known(self, known: int, *, first: int) -> None:
        """Say how many tasks there are, and from which on they are being learned (joint training learns all)."""
        self.known, self.first = known, first
        self.known_tasks.copy_(torch.tensor([known, first]))

    @abstractmethod
    def list_parts(self, task: int) -> list[nn.Module | nn.Parameter]:
        """What belongs to one task alone, and is used as soon as it is known."""

    @abstractmethod
    def list_divergence(self, task: int) -> list[nn.Module]:
        """What is used only while one task is being learned."""

    def list_frozen(self) -> Iterator[nn.Parameter]:
        """Weights that do not move now: of older tasks, of those to come, and of divergence heads not in use."""
        for task in range(len(self.sizes)):
            if not self.first <= task < self.known:
                yield from list_parameters(self.list_parts(task))
            if not self._diverges(task):
                yield from list_parameters(self.list_divergence(task))

    def list_tuned(self) -> Iterator[nn.Parameter]:
        """What is trained while the encoder is frozen: the decoder and the parts of all known tasks, old ones too."""
        encoder = [self.inputs, self.embed_positions, self.rotaries, self.biases, self.blocks]
        held = {id(weight) for weight in list_parameters([part for part in encoder if part is not None])}
        for task in range(len(self.sizes)):
            parts = [*self.list_divergence(task), *(self.list_parts(task) if task >= self.known else [])]
            held |= {id(weight) for weight in list_parameters(parts)}
        return (weight for weight in self.parameters() if id(weight) not in held)

    def _diverges(self, task: int) -> bool:
        return task == self.known - 1 == self.first and task > 0

    def _join_logits(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits of the known tasks as one tensor in the order of the classes' numbers, [B, K]."""
        joined = torch.cat(list(logits), -1)
        full = F.pad(joined, (0, self.classes - joined.shape[-1]), value=UNKNOWN)
        return full.index_select(-1, torch.argsort(self.order))

    def _make_output(
        self, logits: Sequence[Tensor], hidden: Tensor, divergence: Tensor | None, context: ForwardContext
    ) -> GrowingOutput:
        known = self.order[: sum(self.sizes[: self.known])]
        joined = self._join_logits(logits)
        if self.training and torch.is_grad_enabled():
            joined = joined + self._touch_unused()
        new = sum(self.sizes[self.first : self.known])
        return GrowingOutput(joined, hidden, dict(context.aux), dict(context.traces), known, new, divergence)

    def _touch_unused(self) -> Tensor:
        """0, with the weights in its graph that this pass did not use: data-parallel training waits for all of them."""
        unused = [part for task in range(self.known, len(self.sizes)) for part in self.list_parts(task)]
        for task in range(len(self.sizes)):
            unused += [] if self._diverges(task) else self.list_divergence(task)
        zeros = [0.0 * weight.sum() for weight in list_parameters(unused)]
        return torch.stack(zeros).sum() if zeros else torch.zeros((), device=self.known_tasks.device)


def read_known_tasks(module: nn.Module, keys: Any) -> None:
    """Take from loaded weights how many tasks they know."""
    del keys
    net = cast(GrowingClassifier, module)
    net.known, net.first = net.known_tasks.tolist()


def list_parameters(parts: Sequence[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """The weights of modules, and weights themselves."""
    for part in parts:
        if isinstance(part, nn.Parameter):
            yield part
        else:
            yield from part.parameters()
