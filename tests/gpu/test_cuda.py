"""The same numbers on a CUDA device as on the CPU, and whole runs there. Skipped where there is no device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.helpers import SHAPE, VOCAB, Rows, decoder, task, trainer

import aptlab
from aptlab.device import Auto, Cuda, resolve_precision
from aptlab.nn.positions.rope import YaRN
from aptlab.ops.rotary import rotate_pairs, rotate_pairs_reference
from aptlab.optim import AdamW8bit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1))


def test_auto_takes_the_gpu_and_bfloat16():
    assert Auto().torch_device == "cuda"
    assert Cuda().trainer_args()["accelerator"] == "cuda"
    assert resolve_precision("auto", "cuda") == "bf16-mixed"


def test_logits_equal_those_of_the_cpu(tokens):
    net = decoder(rope=YaRN(original_len=16))
    expected = net(tokens).logits
    got = net.cuda()(tokens.cuda()).logits.cpu()
    assert (got - expected).abs().max() < 1e-4


def test_rotary_tables_follow_the_device_and_stay_float32(tokens):
    net = decoder().to("cuda", torch.bfloat16)
    table = net.rotaries[0].lo_cos
    assert (table.device.type, table.dtype) == ("cuda", torch.float32)
    assert torch.equal(table.cpu(), decoder().rotaries[0].lo_cos)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_on_the_device_equals_float64(dtype):
    x = torch.randn(2, 3, 50, 64, device="cuda").to(dtype)
    angle = torch.rand(1, 1, 50, 32, device="cuda") * 6.28
    expected = rotate_pairs_reference(x.double(), angle.double().cos(), angle.double().sin())
    got = rotate_pairs(x, angle.cos(), angle.sin())
    assert got.dtype == dtype
    bound = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert (got.double() - expected).abs().max() < bound


def test_cached_decode_equals_the_full_forward(tokens):
    net = decoder().cuda().eval()
    tokens = tokens.cuda()
    with torch.inference_mode():
        full = net(tokens).logits
        cache = net.new_cache(3, 40)
        parts = [net(tokens[:, :17], cache=cache).logits]
        parts += [net(tokens[:, t : t + 1], cache=cache).logits for t in range(17, 40)]
    assert (torch.cat(parts, 1) - full).abs().max() < 1e-4


def test_a_compiled_network_gives_the_same_logits(tokens):
    net = decoder().cuda()
    expected = net(tokens.cuda()).logits
    net.compile()
    assert (net(tokens.cuda()).logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "bf16-true"])
def test_training_lowers_the_loss(precision):
    module = task(shape=SHAPE)
    row = {name: value.cuda() for name, value in Rows().row(0).items()}
    before = module.cuda().training_step(row, 0)["loss"].item()
    run = trainer(accelerator="cuda", precision=precision, max_steps=30, val_check_interval=1000)

    class Same:
        def __iter__(self):
            while True:
                yield Rows().row(0)

    run.fit(module, Same())
    with torch.no_grad():
        after = module.cuda().training_step(row, 0)["loss"].item()
    assert after < before - 0.5


def test_eight_bit_adam_trains_on_the_device():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    net = torch.nn.Linear(128, 128).cuda()
    optimizer = AdamW8bit(lr=0.01).make(net)
    x, y = torch.randn(64, 128, device="cuda"), torch.randn(64, 128, device="cuda")
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.mse_loss(net(x), y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]


def test_a_run_trains_evaluates_and_reports_on_the_device(tmp_path: Path):
    folder = tmp_path / "run"
    words = ["size=debug", "trainer=debug", "context=64", "device=cuda", "logger=csv", "smooth=memory"]
    aptlab.train(words, f"run_dir={folder}")
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 10
    assert [row["multiple"] for row in result["lengths"]] == [1, 2, 4, 8]
    assert (folder / "figure.png").stat().st_size > 10_000
