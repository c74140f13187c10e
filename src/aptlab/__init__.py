"""aptlab: config-driven experiments on long-context and efficient transformers.

Importing this package is cheap: it loads no torch, no Lightning and no Hydra. The public names below are loaded when
one of them is first used; docs/api.md explains them with an example each.

    import aptlab

    run = aptlab.train("rope=yarn", "rope.factor=4", "trainer.max_steps=200")
    model = aptlab.load(run.path)
    print(model.generate("The for statement")[0])
    print(aptlab.evaluate(model, "lengths").values["lengths"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aptlab.version import __version__

if TYPE_CHECKING:
    from aptlab.api import EvalResult, build, evaluate, generate, load, train
    from aptlab.errors import AptlabError
    from aptlab.restore.load import LoadedModel
    from aptlab.runs import Run
    from aptlab.sample import GeneratedText

__all__ = [
    "AptlabError",
    "EvalResult",
    "GeneratedText",
    "LoadedModel",
    "Run",
    "__version__",
    "build",
    "evaluate",
    "generate",
    "load",
    "train",
]

_HOMES = {
    "AptlabError": "aptlab.errors",
    "GeneratedText": "aptlab.sample",
    "LoadedModel": "aptlab.restore.load",
    "Run": "aptlab.runs",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "aptlab.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
