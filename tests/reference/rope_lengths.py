"""What rules make of lengths, in float64 from the papers. Nothing of aptlab is imported.

D head dim, i pair index from 0, s stretch factor, L original context, L' new context, l length of a sequence.
"""

import math

from tests.reference.rope import standard


def liu_base(base, original_len, new_len):
    """b' = b^(log_{L/2pi}(L'/2pi)) (Liu et al. 2023, arXiv:2310.05209; LongRoPE2's "NTK", arXiv:2502.20082, 2.3)."""
    return math.exp(math.log(base) * math.log(new_len / (2 * math.pi)) / math.log(original_len / (2 * math.pi)))


def dynamic_base(base, factor, original_len, length, head_dim):
    """The released code: b · (s l / L - (s - 1))^(D/(D-2)) for l > L, b up to L."""
    if length <= original_len:
        return base
    return base * math.pow(factor * length / original_len - (factor - 1), head_dim / (head_dim - 2))


def dynamic_base_paper(base, original_len, length, head_dim):
    """b · s^(D/(D-2)) with s = max(1, l / L) (Peng et al. 2023, arXiv:2309.00071, section 3.3)."""
    return base * math.pow(max(1.0, length / original_len), head_dim / (head_dim - 2))


def critical_pair(base, original_len, head_dim):
    """The first pair whose wavelength is longer than L, found by looking at each."""
    for i, theta in enumerate(standard(base, head_dim)):
        if 2 * math.pi / theta > original_len:
            return i
    return head_dim // 2


def ntk_through(base, factor, critical, head_dim):
    """Frequencies of the base at which pair `critical` is divided by s: theta_i · s^(-i / critical)."""
    return [theta / math.pow(factor, i / critical) for i, theta in enumerate(standard(base, head_dim))]


def continued(stretch, critical, head_dim):
    """LongRoPE2 before a search: lambda_i = lambda_rcd^(i / d_rcd) below the critical pair, lambda_rcd from it on."""
    return [stretch if i >= critical else math.exp(math.log(stretch) * i / critical) for i in range(head_dim // 2)]


def searched(base, divisors, head_dim):
    """theta_i / lambda_i (Ding et al. 2024, arXiv:2402.13753, eq. 2)."""
    return [theta / divisor for theta, divisor in zip(standard(base, head_dim), divisors, strict=True)]


def su(factor, original_len):
    """Factor on queries and keys each of Phi-3 and LongRoPE: sqrt(1 + ln s / ln L)."""
    return math.sqrt(1 + math.log(factor) / math.log(original_len)) if factor > 1 else 1.0


def mscale(factor, weight):
    """DeepSeek's yarn_get_mscale: 0.1 c ln s + 1."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def deepseek_logits(factor, mscale_, mscale_all_dim):
    """cos and sin times m(mscale) / m(mscale_all_dim), softmax scale times m(mscale_all_dim)²: what logits get."""
    rotated = mscale(factor, mscale_) / mscale(factor, mscale_all_dim)
    return rotated * rotated * mscale(factor, mscale_all_dim) ** 2


def proportional(base, fraction, factor, head_dim):
    """p-RoPE: the first of the pairs with exponents over the head, the others stand still."""
    kept = math.floor(fraction * head_dim / 2)
    return [theta / factor if i < kept else 0.0 for i, theta in enumerate(standard(base, head_dim))]
