"""Temperatures: factors on the attention logits by how far a context is stretched. s = factor, L = original_len."""

from __future__ import annotations

import math

TEMPERATURE_LAWS = ("none", "yarn", "su", "apt_sqrt", "apt_sqrt_plus1")
APT_DIM = 128  # the head width of the seeds' formula


def compute_temperature(law: str, factor: float, original_len: int, mscale: float) -> float:
    """Factor on q·k: the square of what queries and keys are multiplied by.

    none            1
    yarn            (0.1 · mscale · ln s + 1)²  (Peng et al. 2023, arXiv:2309.00071, eq. 22). DeepSeek rotates by
                    m(mscale) / m(mscale_all_dim) and multiplies the softmax scale by m(mscale_all_dim)², with
                    m(c) = 0.1 c ln s + 1: where the whole head rotates, mscale_all_dim cancels and this is left
    su              1 + ln s / ln L             (Phi-3 and LongRoPE checkpoints)
    apt_sqrt        (0.1 · sqrt(1 + ln s / 128))², the seeds' formula: about 0.01 at every s, so attention is all but
                    uniform
    apt_sqrt_plus1  (1 + 0.1 · sqrt(1 + ln s / 128))², what it may have meant: about 1.21 at every s
    """
    if law == "none" or (factor <= 1 and law in ("yarn", "su")):
        return 1.0
    if law == "yarn":
        return (0.1 * mscale * math.log(factor) + 1) ** 2
    if law == "su":
        return compute_su_temperature(factor, original_len)
    root = 0.1 * math.sqrt(1 + math.log(factor) / APT_DIM)
    return root**2 if law == "apt_sqrt" else (1 + root) ** 2


def compute_su_temperature(factor: float, original_len: int) -> float:
    """1 + ln s / ln L."""
    return 1 + math.log(factor) / math.log(original_len)
