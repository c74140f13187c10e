"""mlx-lm: reads the older keys. Of YaRN it computes its own factor and rounds the ramp's ends; LongRoPE is always long.

Frequencies that it has no word for can be said to it as the long list of `longrope`, taken at every length. Its factor
on queries and keys is then sqrt(1 + ln(M / L) / ln L) with M the longest and L the original length, so L is chosen for
the factor A that is wanted: L = M^(1 / A²). No torch.
"""

from __future__ import annotations

import math

from aptlab.errors import ConfigError
from aptlab.models.hf.readers.base import KEPT, Config, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_phi3_fields
from aptlab.models.hf.readers.rules import ROWS
from aptlab.models.hf.rope_from_hf import read_rope_rule


def write_mlx_config(config: Config) -> Config:
    """The older keys, with YaRN's factor as `mscale` and its open ends as divisors.

    Raises ConfigError for a factor below 1 on frequencies that have no name there.
    """
    older = keep_phi3_fields(config)
    if "sliding_attention" in config["rope_parameters"]:
        return older | {"sliding_window_pattern": count_pattern(config["layer_types"])}
    scaling = older["rope_scaling"]
    if scaling is None or config["model_type"] == "phi3":
        return older
    if scaling["type"] == "longrope" or not scaling.get("truncate", True):
        older["rope_scaling"] = write_divisors(config)
    elif scaling["type"] == "yarn" and scaling.get("attention_factor") and scaling["factor"] > 1:
        mscale = (scaling["attention_factor"] - 1) / (0.1 * math.log(scaling["factor"]))
        older["rope_scaling"] = {**scaling, "mscale": mscale, "mscale_all_dim": 0}
    return older


def count_pattern(kinds: list[str]) -> int:
    """n where every n-th layer is full and the others slide; ConfigError where no n says it."""
    pattern = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
    if any((kind == "full_attention") != ((layer + 1) % pattern == 0) for layer, kind in enumerate(kinds)):
        raise ConfigError(
            f"layer_types={kinds} cannot be said to mlx-lm, where every n-th layer is full and the others slide; train "
            "with attention.window.full_every=n, or export for=transformers5"
        )
    return pattern


def write_divisors(config: Config) -> Config:
    """`rope_scaling` of a rule with fixed frequencies, as the long list of `longrope`."""
    rule, longest = read_rope_rule(config), config["max_position_embeddings"]
    short, long = rule.divisors(config["head_dim"])
    factor = math.sqrt(rule.temperature)
    if factor < 1:
        raise ConfigError(
            f"attention_factor={factor:.6g} below 1 cannot be said to mlx-lm with these frequencies; train with "
            "rope.attention_factor=null, or export for=transformers5"
        )
    return {
        "rope_type": "longrope",
        "type": "longrope",
        "factor": max(1.0, max(long)),
        "original_max_position_embeddings": longest ** (1 / factor**2),
        "short_factor": list(short),
        "long_factor": list(long),
    }


LONG = Verdict("partly", "its long list at every length")
PHI3 = Verdict("refused", "it wants `type` in rope_scaling")
MLX = Reader(
    name="mlx",
    versions=("mlx-lm 0.32.2", "mlx 0.32.4"),
    default=dict.fromkeys(ROWS, KEPT)
    | {
        "yarn attention_factor": Verdict("partly", "default yarn"),
        "yarn truncate": Verdict("partly", "default yarn"),
        "divisors": Verdict("partly", "another factor on queries and keys"),
        "longrope": PHI3,
        "partial": PHI3,
        "per layer": Verdict("refused", "its layers slide by sliding_window_pattern"),
    },
    own=dict.fromkeys(ROWS, KEPT) | {"longrope": LONG},
    form=write_mlx_config,
)
