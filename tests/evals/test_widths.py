"""`eval=widths`: numbers of each width, against passes over the same text."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError
from aptlab.evals import EvalContext, EvalFolder, WidthLoss
from aptlab.models.cost import estimate_cost
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.objectives import compute_token_nll
from aptlab.testing import make_tiny_decoder
from tests.evals.test_contracts import Data

CONTEXT = 16


def open_context(net):
    return EvalContext(
        net=net,
        tokenizer=ByteTokenizer(),
        device="cpu",
        precision="32-true",
        trained_context=CONTEXT,
        title="a network",
        open_data=Data,
        folder=EvalFolder(),
    )


def make_net(**rest):
    return make_tiny_decoder(vocab=ByteTokenizer().vocab_size, **rest)


@torch.no_grad()
def test_rows_are_those_of_passes_over_the_same_windows():
    net = make_net(ffn=partial(SwiGLU, nested=MatFormer()))
    found = WidthLoss(tokens=96).measure(open_context(net))
    (batch,) = Data().windows(CONTEXT, multiples=(1,), tokens=96).batches(1)
    whole = net(batch["tokens"]).logits.argmax(-1)
    assert [row["width"] for row in found.rows["widths"]] == [1.0, 0.5, 0.25, 0.125]
    for row in found.rows["widths"]:
        logits = net(batch["tokens"], width=row["width"]).logits
        assert row["loss"] == pytest.approx(compute_token_nll(logits, batch["targets"]).item(), rel=1e-5)
        assert row["agreement"] == pytest.approx((logits.argmax(-1) == whole).double().mean().item())
        assert row["forward_flops"] == estimate_cost(net, CONTEXT, row["width"]).forward
        assert row["ffn_flops"] == row["width"] * 3 * 2 * 3 * 32 * 48
        assert row["tokens"] == 96
    assert found.rows["widths"][0]["agreement"] == 1
    (table,) = found.tables
    assert "-87.5%" in table
    assert "-50.0%" in table
    assert "+0.0%" in table


def test_a_network_of_one_width_and_a_width_that_is_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"^eval=widths measures the widths of a nested network, and this one has a"):
        WidthLoss().check(open_context(make_net()))
    nested = make_net(ffn=partial(SwiGLU, nested=MatFormer()))
    with pytest.raises(ConfigError, match=r"^width=0\.3: block 0 has the widths"):
        WidthLoss(widths=(0.3,)).check(open_context(nested))
    with pytest.raises(ConfigError, match=r"^widths=\[\] measures nothing; leave it out for all widths of the net"):
        WidthLoss(widths=())
