"""Device rules answer with Trainer arguments, and say so when the device is not here."""

from __future__ import annotations

import pytest
import torch

from aptlab.device import DDP, Auto, Cpu, Cuda, resolve_precision
from aptlab.errors import ConfigError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def test_cpu_is_one_process():
    assert Cpu().trainer_args() == {"accelerator": "cpu", "devices": 1, "strategy": "auto"}


@NO_CUDA
def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert Auto().trainer_args() == Cpu().trainer_args()
    assert Auto().torch_device == "cpu"


@NO_CUDA
def test_a_missing_gpu_is_an_error_and_not_a_silent_cpu():
    with pytest.raises(ConfigError, match=r"^devices=2 wants 2 CUDA devices and 0 are here; use device=cpu"):
        Cuda(devices=2).trainer_args()


@NO_CUDA
def test_ddp_falls_to_gloo_ranks_on_the_cpu():
    args = DDP(devices=2).trainer_args()
    assert (args["accelerator"], args["devices"], args["num_nodes"]) == ("cpu", 2, 1)
    assert args["strategy"]._process_group_backend == "gloo"


def test_zero_processes_are_refused():
    with pytest.raises(ConfigError, match=r"^devices must be a finite number >= 1, got 0"):
        DDP(devices=0)


def test_precision_auto_is_full_on_the_cpu():
    assert resolve_precision("auto", "cpu") == "32-true"
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"


def test_an_unknown_precision_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"precision=bf16: no such precision; did you mean bf16-"):
        resolve_precision("bf16", "cpu")


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(ConfigError, match=r"precision=16-mixed needs a GPU; on the CPU use precision=bf16-mixed"):
        resolve_precision("16-mixed", "cpu")
