"""The kernel of joins and norms against its reference in float64, case by case: in Triton's interpreter, or on CUDA."""

from __future__ import annotations

import functools
import itertools
import math
import sys

import torch
from torch.utils.checkpoint import checkpoint

from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Gate, LeftSpin, MemorySmooth, Plain, Strength
from aptlab.ops import smooth_norm as op
from aptlab.ops.smooth_norm import GateArgs, JoinArgs
from aptlab.ops.triton import smooth_norm as kernel
from aptlab.testing import make_random_tokens, make_tiny_decoder

SIZES = [(2, 3, 16), (1, 5, 33), (3, 1, 300)]  # B T C
KINDS = [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)]
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}  # of the largest value of a tensor
GATE = GateArgs(1.3, 0.4, 0.6, 5.0, math.log1p(math.exp(-2.0)) / 5, 0.9, 0.7, 5e-4)
SHAPE = Shape(dim=16, depth=2, heads=2, hidden=32)
COMPILED = ("plain", "left_spin", "memory")
FORMS = ["plain", "first", "deep", "lifted", "shallow", "no turn"]


def make_case(size, kinds, form, device, *, normed=True, zero=False):
    """Stream, branch (a strided view) and the rest of a join whose rows spread over the whole range of the gate."""
    generator = torch.Generator().manual_seed(sum(size))
    batch, tokens, dim = size
    u, step = (torch.randn(size, generator=generator) for _ in range(2))
    whole = torch.randn(batch, tokens, 2 * dim, generator=generator)
    whole *= torch.logspace(-2, 1, batch * tokens).view(batch, tokens, 1)
    phi, lift = (torch.rand(batch, tokens, 1, generator=generator).to(device) for _ in range(2))
    weight = torch.rand(dim, generator=generator).add(0.5).to(device).requires_grad_() if normed else None
    gate = None if form == "plain" else GATE._replace(zero=zero, keep=form != "shallow")
    gate = gate._replace(w2=0.0) if gate and form == "no turn" else gate
    args = JoinArgs(gate, weight=weight)
    if form in ("deep", "lifted", "no turn"):
        args = args._replace(step=step.to(device, kinds[1]), phi=phi)
    if form == "lifted":
        args = args._replace(lift=lift)
    u, delta = u.to(device, kinds[0]), whole.to(device, kinds[1])[..., dim:]
    if zero:
        delta[0, 0, 0] = math.inf
    return u.requires_grad_(), delta.detach().requires_grad_(), args


def widen(args):
    """The same join in float64, with a weight of its own."""
    wide = {name: x.detach().double() for name, x in args._asdict().items() if isinstance(x, torch.Tensor)}
    return args._replace(**wide)


def assert_near(name, got, expected, dtype):
    assert got.dtype == dtype, f"{name}: {got.dtype}"
    error = (got.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
    assert error <= LIMITS[dtype], f"{name}: {error:.2e}"


def assert_case(size, kinds, form, device, *, normed=True, zero=False, reads="both"):
    """Outputs and gradients of the kernel; reads: which outputs the loss looks at."""
    u, delta, args = make_case(size, kinds, form, device, normed=normed, zero=zero)
    near_u, near_delta = (x.detach().double().requires_grad_() for x in (u, delta))
    wide = widen(args)
    if wide.weight is not None:
        wide.weight.requires_grad_()
    got, expected = op.join_norm_kernel(u, delta, args), op.join_norm_reference(near_u, near_delta, wide)
    name = f"{size} {kinds} {form} normed={normed} zero={zero} reads={reads}"
    for field, right in expected._asdict().items():
        ours = getattr(got, field)
        assert (ours is None) == (right is None), f"{name}: {field}"
        if right is not None:
            kind = {"stream": kinds[0], "normed": kinds[0], "step": kinds[1]}.get(field, torch.float32)
            finite = right.isfinite()
            assert torch.equal(ours.isfinite(), finite), f"{name}: {field}"
            assert_near(f"{name}: {field}", ours[finite], right.detach()[finite], kind)
    outs = [x for x in ((got.stream, expected.stream), (got.normed, expected.normed)) if x[1] is not None]
    outs = outs if reads == "both" else outs[-1:] if reads == "norm" else outs[:1]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(x.shape, generator=generator).to(device, x.dtype) for x, _ in outs]
    inputs, rights = [u, delta], [near_u, near_delta]
    if normed and reads != "stream":
        inputs.append(args.weight)
        rights.append(wide.weight)
    ours = torch.autograd.grad([x for x, _ in outs], inputs, grads)
    right = torch.autograd.grad([x for _, x in outs], rights, [x.double() for x in grads])
    for field, leaf, one, other in zip(("du", "ddelta", "dweight"), inputs, ours, right, strict=False):
        narrow = [kind for kind in kinds if kind != torch.float32]  # the norm reads the stream as it was rounded
        limit = narrow[0] if narrow and field == "dweight" else leaf.dtype
        assert one.dtype == leaf.dtype, f"{name}: {field} {one.dtype}"
        assert_near(f"{name}: {field}", one.to(limit), other, limit)


def assert_all_cases(device):
    for number, (size, form) in enumerate(itertools.product(SIZES, FORMS)):
        turn = (number + number // len(FORMS)) % len(KINDS)  # the interpreter takes its time: one type a case, in turn
        for kinds in KINDS if device != "cpu" else KINDS[turn : turn + 1]:
            assert_case(size, kinds, form, device)
    for form, zero, reads in itertools.product(("plain", "deep"), (False, True), ("both", "norm", "stream")):
        if not (zero and form == "plain"):
            assert_case((2, 3, 16), KINDS[1], form, device, zero=zero, reads=reads)
            assert_case((2, 3, 16), KINDS[2], form, device, zero=zero, normed=False)
    assert_transposed_rows_are_right(device)
    assert_empty_rows_are_empty(device)
    assert_a_small_step_is_added_whole(device)
    assert_what_is_not_finite_shows(device)
    assert_tiles_agree(device)


def assert_transposed_rows_are_right(device):
    u, delta, args = make_case((2, 3, 16), KINDS[0], "deep", device)
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1) for x in (u, delta)]
    args = args._replace(step=args.step.transpose(0, 1).contiguous().transpose(0, 1))
    assert torch.equal(op.join_norm_kernel(*turned, args).stream, op.join_norm_kernel(u, delta, args).stream)


def assert_empty_rows_are_empty(device):
    u = torch.zeros(0, 3, 16, device=device, requires_grad=True)
    weight = torch.ones(16, device=device, requires_grad=True)
    out = op.join_norm_kernel(u, u, JoinArgs(GATE, weight=weight))
    (out.stream.sum() + out.normed.sum()).backward()
    assert out.normed.shape == (0, 3, 16)
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def assert_a_small_step_is_added_whole(device):
    u, delta, args = make_case((2, 3, 16), KINDS[0], "first", device)
    with torch.no_grad():
        delta = 1e-6 * delta
        out = op.join_norm_kernel(u, delta, args)
        assert torch.equal(out.stream, u + delta)
        assert torch.equal(out.gate, torch.ones_like(out.gate))
        zero = op.join_norm_kernel(0 * u, 0 * delta, args)
        assert zero.normed.isfinite().all()


def assert_what_is_not_finite_shows(device):
    u, delta, args = make_case((2, 3, 16), KINDS[0], "deep", device)
    with torch.no_grad():
        delta[0, 1, 3], args.step[1, 2, 0] = math.inf, math.nan
        out = op.join_norm_kernel(u, delta, args)
        shown, size = ~out.stream.isfinite().all(-1), ~out.size.isfinite()[..., 0]
    assert shown.nonzero().tolist() == [[0, 1], [1, 2]]
    assert size.nonzero().tolist() == [[0, 1]]


def assert_tiles_agree(device):
    """What a program has at a time changes nothing of a row, and a weight's gradient by its rounding alone."""
    u, delta, args = make_case((4, 5, 40), KINDS[0], "deep", device)
    how = kernel.JoinSpec(True, False, *GATE[:8], args.eps)
    weight, found = args.weight.detach(), []
    for tile in (kernel.JoinTile(1, 1, 1), kernel.JoinTile(2, 4, 3), kernel.JoinTile(8, 2, 2)):
        history = args.step, args.phi
        out = kernel.join_forward(u.detach(), delta.detach(), history, None, weight, how, keep_step=True, tile=tile)
        saved = kernel.SavedJoin(out.stream, out.rstd, out.stats, weight)
        grads = kernel.join_backward(out.stream, out.normed, saved, how, torch.float32, tile=tile)
        found.append((*out, *grads))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert (one - two).abs().max() <= 2e-6 * one.abs().max()


def make_smooths():
    def memory(*args, **kwargs):
        return MemorySmooth(*args, strength=Strength(reference=1.0), **kwargs)

    return {
        "plain": Plain,
        "left_spin": LeftSpin,
        "shallow": functools.partial(LeftSpin, strength=Strength(history="none")),
        "zero_token": functools.partial(LeftSpin, gate=Gate(nonfinite="zero_token")),
        "memory": memory,
        "through": functools.partial(LeftSpin, gate=Gate(grad="through")),
        "cosine": functools.partial(LeftSpin, gate=Gate(kind="cosine")),
    }


def run_model(net, tokens, call=None):
    """Logits and gradients of a training pass, on the CPU; call(net, tokens) gives the logits."""
    net.train().zero_grad()
    logits = (call or compute_logits)(net, tokens)
    logits.float().logsumexp(-1).sum().backward()
    return [logits.detach().cpu(), *(x.grad.cpu() for x in net.parameters() if x.grad is not None)]


def compute_logits(net, tokens):
    return net(tokens).logits


def recompute_logits(net, tokens):
    return checkpoint(compute_logits, net, tokens, use_reentrant=False)


def assert_models_agree(fast, slow, limit, name):
    for one, other in zip(fast, slow, strict=True):
        error = ((one - other).abs().max() / other.abs().max().clamp_min(1e-3)).item()
        assert error <= limit, f"{name}: {error:.2e}"


def assert_models(device, backend="aot_eager"):
    """Whole models by the kernel: the reference's numbers; recomputed and compiled the same again."""
    tokens, chosen = make_random_tokens(2, 7).to(device), op.can_use_kernel
    limit = 1e-4 if device == "cpu" else 5e-3  # matrices of a GPU add up in no fixed order
    for name, smooth in make_smooths().items():
        net = make_tiny_decoder(smooth=smooth, shape=SHAPE).to(device)
        found = {}
        for kind, choice in (("fused", lambda u, delta: True), ("plain", lambda u, delta: False)):
            use_choice(choice)
            found[kind] = run_model(net, tokens)
            again = run_model(net, tokens, recompute_logits)
            assert_models_agree(again, found[kind], 0.0 if device == "cpu" else limit, f"{name} {kind} recomputed")
        assert_models_agree(found["fused"], found["plain"], limit, name)
        if name not in COMPILED:
            continue
        use_choice(lambda u, delta: True)
        torch._dynamo.reset()
        call = torch.compile(compute_logits, fullgraph=True, backend=backend)
        assert_models_agree(run_model(net, tokens, call), found["fused"], limit, f"{name} compiled")
    use_choice(chosen, spike_kernels=False)


def use_choice(choice, *, spike_kernels=True):
    """Let every room that asks for the kernel get this answer, those of the spike memory too."""
    from aptlab.nn.smooth import fused, plain
    from aptlab.ops import spikes

    for module in (op, fused, plain, spikes):
        module.can_use_kernel = choice
    spikes.HELD_ON_CUDA = spike_kernels


if __name__ == "__main__":
    {"ops": assert_all_cases, "models": assert_models}[sys.argv[1]]("cpu")
    print("all cases passed")
