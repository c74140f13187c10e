"""The kernel of joins and norms on a CUDA device: every case, wide rows, bf16 autocast, one graph. Skipped without."""

from __future__ import annotations

import pytest
import torch
from tests.ops import smooth_cases as cases
from tests.ops import spike_cases

from aptlab.callbacks.smoothing import collect_spikes
from aptlab.nn.smooth import LeftSpin, MemorySmooth, Plain, SketchTeacher
from aptlab.ops import smooth_norm as op
from aptlab.testing import make_random_tokens, make_tiny_decoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_every_case_is_the_reference_in_float64():
    cases.assert_all_cases("cuda")


@pytest.mark.parametrize(
    "size", [(2, 700, 768), (1, 1500, 1000), (1, 900, 4096), (3, 333, 8192), (1, 5000, 64)], ids=str
)
@pytest.mark.parametrize("form", ["plain", "deep", "lifted"])
@pytest.mark.parametrize("kinds", [*cases.KINDS, (torch.float16, torch.float16)], ids=str)
def test_rows_of_every_width_are_right_where_a_program_takes_several(size, form, kinds):
    cases.assert_case(size, kinds, form, "cuda")


def test_models_train_with_the_numbers_of_the_reference_recomputed_and_compiled():
    cases.assert_models("cuda", backend="inductor")


def test_rows_wider_than_a_program_take_the_reference():
    u = torch.randn(1, 2, op.WIDEST + 1, device="cuda")
    assert not op.can_use_kernel(u, u)
    assert not op.can_use_kernel(u[..., :8].double(), u[..., :8])
    assert op.can_use_kernel(u[..., :8], u[..., :8].bfloat16())


def test_gradients_of_the_norms_weight_are_the_same_twice():
    u, delta, args = cases.make_case((1, 20_000, 768), cases.KINDS[2], "deep", "cuda")
    loss = lambda out: out.normed.float().square().sum() + out.stream.float().sum()  # noqa: E731
    one, two = (torch.autograd.grad(loss(op.join_norm(u, delta, args)), args.weight)[0] for _ in range(2))
    assert torch.equal(one, two)


def test_offsets_beyond_32_bits_are_right():
    """A stride of 2^31 elements between two rows."""
    memory = torch.zeros(2**31 + 64, dtype=torch.bfloat16, device="cuda")
    delta = memory.as_strided((1, 2, 64), (0, 2**31, 1))
    delta.copy_(torch.randn(1, 2, 64, device="cuda"))
    u, weight = torch.randn(1, 2, 64, device="cuda", dtype=torch.bfloat16), torch.ones(64, device="cuda")
    args = op.JoinArgs(cases.GATE, weight=weight)
    far, near = op.join_norm(u, delta, args), op.join_norm(u, delta.clone(), args)
    assert torch.equal(far.stream, near.stream)
    assert torch.equal(far.normed, near.normed)


@pytest.mark.parametrize("smooth", [Plain, LeftSpin, MemorySmooth])
def test_a_model_under_autocast_is_near_its_plain_path(smooth):
    def run(choice):
        cases.use_choice(choice)
        net = make_tiny_decoder(smooth=smooth, gain=2.0).cuda()

        def call(net, ids):
            with torch.autocast("cuda", torch.bfloat16):
                return cases.compute_logits(net, ids)

        return cases.run_model(net, make_random_tokens(2, 40).cuda(), call)

    chosen = op.can_use_kernel
    try:
        fast, slow = run(chosen), run(lambda u, delta: False)
    finally:
        cases.use_choice(chosen)
    cases.assert_models_agree(fast, slow, 3e-2, smooth.__name__)


def test_transforms_of_torch_func_take_the_reference():
    smooth = LeftSpin(16, layer=0, site="ffn").cuda()
    u, delta = torch.randn(2, 3, 4, 16, device="cuda").unbind(0)
    got = torch.vmap(lambda a, b: smooth.join(a[None], b[None], None).u[0])(u, delta)
    assert torch.allclose(got, smooth.join(u, delta, None).u, atol=1e-5)


def test_the_spike_memory_reads_proposes_and_writes_as_on_the_host():
    spike_cases.assert_all_cases("cuda")
    spike_cases.assert_danger("cuda", torch.bfloat16, dim=768, rows=(2, 3000))
    spike_cases.assert_picks("cuda", torch.bfloat16, dim=768, tokens=70_000)
    spike_cases.assert_updates("cuda", dim=768)


def test_a_step_of_the_memory_waits_for_nothing():
    """The whole of it: forward, backward, candidates, and the memories of all sites written."""
    net = make_tiny_decoder(smooth=MemorySmooth).cuda().train()
    memories = {f"{m.layer}/{m.site}": m for m in net.modules() if isinstance(m, MemorySmooth)}
    teacher, tokens = SketchTeacher([m.sketch for m in memories.values()]), make_random_tokens(2, 40).cuda()

    def step():
        out = net(tokens)
        out.logits.float().logsumexp(-1).sum().backward()
        teacher.update(collect_spikes(list(memories), [out.traces]), torch.zeros((), device="cuda"))

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(int((m.sketch.strengths > 0).sum()) for m in memories.values()) > 0
