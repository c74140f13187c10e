"""Every option of the group `callbacks` keeps the laws of callbacks, by being there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from aptlab.testing import CallbackContract

OPTIONS = Path(__file__).parents[2] / "conf" / "callbacks"
DEFAULT = yaml.safe_load((OPTIONS / "default.yaml").read_text())["defaults"]
OTHERS = sorted({path.stem for path in OPTIONS.glob("*.yaml")} - {"default", *DEFAULT})
NEEDS = {"mixed": ("data=mixed", "data.rows.original_len=16")}


@pytest.mark.parametrize("option", ["default", *OTHERS])
def test_every_option_keeps_the_laws(option, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    contract = CallbackContract()
    contract.words = (f"callbacks=[default{'' if option == 'default' else f',{option}'}]", *NEEDS.get(option, ()))
    contract.test_a_continued_run_ends_with_the_same_weights_and_the_same_states()


class Forgetful(Callback):
    """Counts batches, and keeps in checkpoints what it counted since the start of the process."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: object) -> None:
        self.batches += 1

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}


@pytest.mark.slow
def test_a_callback_that_does_not_take_its_state_back_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("APTLAB_TRUST", __name__)
    monkeypatch.chdir(tmp_path)
    Path("conf/callbacks").mkdir(parents=True)
    option = f"# Forgets.\nforgetful:\n  _target_: {__name__}.Forgetful\n"
    Path("conf/callbacks/forgetful.yaml").write_text(option)
    contract = CallbackContract()
    contract.words = ("callbacks=[default,forgetful]",)
    with pytest.raises(AssertionError, match=r"^callbacks\.Forgetful\.batches \(4 and 2\) differs"):
        contract.test_a_continued_run_ends_with_the_same_weights_and_the_same_states()
