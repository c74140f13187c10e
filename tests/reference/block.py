"""Forms of a block in float64, each as its paper writes it. Nothing of aptlab is imported.

f, g are attention and feed-forward, every n a norm; all take and give an array [T, C].
"""


def pre_norm(x, f, g, n1, n2):
    """Xiong et al. 2020 (arXiv:2002.04745)."""
    y = x + f(n1(x))
    return y + g(n2(y))


def sandwich(x, f, g, n1, n2, n3, n4):
    """Gemma 2 (arXiv:2408.00118): normalised before and after; n1, n2 around attention."""
    y = x + n2(f(n1(x)))
    return y + n4(g(n3(y)))


def reordered(x, f, g, n1, n2):
    """OLMo 2 (arXiv:2501.00656): h = x + norm(attention(x)), out = h + norm(mlp(h))."""
    h = x + n1(f(x))
    return h + n2(g(h))


def parallel(x, f, g, n1, n2):
    """GPT-NeoX (arXiv:2204.06745, section 2.1): x + attention(n1(x)) + mlp(n2(x))."""
    return x + f(n1(x)) + g(n2(x))


def parallel_shared(x, f, g, n1):
    """PaLM (arXiv:2204.02311, section 2): x + mlp(n(x)) + attention(n(x))."""
    return x + g(n1(x)) + f(n1(x))


def post_norm(x, f, g, n1, n2):
    """Vaswani et al. 2017 (arXiv:1706.03762, section 3.1): LayerNorm(x + Sublayer(x))."""
    y = n1(x + f(x))
    return n2(y + g(y))
