"""aptlab: config-driven experiments on long-context and efficient transformers.

Importing this package is cheap: it loads no torch, no Lightning and no Hydra.
"""

__version__ = "0.1.0"
