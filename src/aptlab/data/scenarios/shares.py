"""Which classes come together."""

from __future__ import annotations

import itertools

from aptlab.errors import ConfigError


def share_classes(count: int, tasks: int, *, shuffle: int | None) -> list[list[int]]:
    """The classes of each of `tasks` tasks: from k count / tasks on, as numbered, or in an order that a seed draws.

    ConfigError where there are more tasks than classes.
    """
    if count < tasks:
        raise ConfigError(f"tasks={tasks} leaves a task without a class, of {count}; use fewer")
    order = list(range(count))
    if shuffle is not None:
        import numpy as np

        from aptlab.data.rows.order import permute_indices

        order = permute_indices(np.arange(count), count=count, seed=shuffle, epoch=0).tolist()
    cuts = [count * task // tasks for task in range(tasks + 1)]
    return [sorted(order[begin:end]) for begin, end in itertools.pairwise(cuts)]
