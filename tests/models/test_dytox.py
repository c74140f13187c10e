"""DyTox: its block against loops in float64, what a new task leaves as it was, what moves, and what is refused."""

from __future__ import annotations

import pytest
import torch

from aptlab.config import build, compose
from aptlab.errors import AptlabError, ConfigError
from aptlab.models.growing import UNKNOWN, list_parameters
from aptlab.nn.context import ForwardContext
from tests.reference import dytox as reference

TASKS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def make(*words: str, task: str = "dytox"):
    node = compose("train", ["scenario=split_digits", f"task={task}", "size=debug", *words]).resolved()["model"]
    torch.manual_seed(0)
    return build(node).eval()


def test_the_block_is_that_of_the_paper():
    net = make().double()
    tab, context = net.tab, ForwardContext(6, causal=False)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    x_BPC = torch.randn(2, 6, net.shape.dim, dtype=torch.float64)
    token_B1C = net.tokens[0].expand(2, 1, -1)
    found = tab(token_B1C, net.norm(token_B1C), tab.read_patches(net.norm(x_BPC)), context)
    names = {"norm": net.norm, "ffn_norm": tab.ffn_norm, "q": tab.q, "k": tab.k, "v": tab.v, "out": tab.out}
    weights = {name: module.weight.tolist() for name, module in names.items()} | {"bias": tab.out.bias.tolist()}
    gate, up = tab.ffn.gate_up.weight.chunk(2)
    weights |= {"gate": gate.tolist(), "up": up.tolist(), "down": tab.ffn.down.weight.tolist()}
    for row in range(2):
        expected = reference.task_attention(
            net.tokens[0][0].tolist(), x_BPC[row].tolist(), weights, tab.heads, net.norm.eps
        )
        torch.testing.assert_close(found[row, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_the_block_of_the_seeds_is_theirs():
    """Five tokens and an attention of its own for each task, the mean over its sequence; padding is not read."""
    net = make(task="dytox_seed").double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    z_BPC = torch.randn(2, 6, net.shape.dim, dtype=torch.float64)
    attention = net.attentions[1]
    weights = {"out": attention.out.weight.tolist(), "out_bias": attention.out.bias.tolist()}
    for name, matrix, bias in zip("qkv", attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True):
        weights |= {name: matrix.tolist(), f"{name}_bias": bias.tolist()}
    assert net.tokens[1].shape == (5, net.shape.dim)
    for patches, segments in ((6, None), (4, torch.tensor([[1, 1, 1, 1, 0, 0]] * 2))):
        found = net._read_task(1, z_BPC, segments)
        for row in range(2):
            given = z_BPC[row, :patches].tolist(), net.tokens[1].tolist()
            expected = reference.token_attention(*given, weights, attention.heads)
            torch.testing.assert_close(found[row].tolist(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", ["dytox", "dytox_seed"])
def test_a_new_task_leaves_older_outputs_as_they_were(task):
    """To the last bit, with no word of which task a row belongs to; classes to come have no probability."""
    net, images = make(task=task), torch.rand(3, 1, 8, 8)
    net.bind_tasks([[3, 7], [0, 1], [2, 9], [4, 5], [6, 8]])
    before = net(images).logits
    seen = [3, 7]
    for classes in ([0, 1], [2, 9]):
        assert (before[:, [k for k in range(10) if k not in seen]] == UNKNOWN).all()
        assert (before.softmax(-1).sum(-1) - before[:, seen].softmax(-1).sum(-1)).abs().max() < 1e-6
        net.add_task()
        after = net(images).logits
        assert torch.equal(after[:, seen], before[:, seen])
        seen, before = [*seen, *classes], after
        assert net(images).known.tolist() == seen


def test_each_task_reads_the_patches_by_itself():
    net, images = make("model.tokens_per_task=3"), torch.rand(2, 1, 8, 8)
    net.set_known(5, first=4)
    before = net(images).logits
    with torch.no_grad():
        net.tokens[1].add_(1.0)
    changed = (net(images).logits != before).any(0)
    assert changed.tolist() == [k in TASKS[1] for k in range(10)]


def test_several_tokens_are_the_mean_of_what_each_reads():
    one, several = make(), make("model.tokens_per_task=2")
    state = {name: weight for name, weight in one.state_dict().items() if not name.startswith("tokens")}
    several.load_state_dict(state | {f"tokens.{t}": token.repeat(2, 1) for t, token in enumerate(one.tokens)})
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(several(images).logits, one(images).logits)


def test_weights_are_frozen_or_in_the_graph_of_a_pass():
    """Every weight has a gradient, as data-parallel training wants it; those of other tasks have no part in it."""
    net, images = make().train(), torch.rand(2, 1, 8, 8)
    net.add_task()
    output = net(images)
    (output.logits[:, :4].sum() + output.divergence.sum()).backward()
    assert all(weight.grad is not None for weight in net.parameters())
    frozen = {id(weight) for weight in net.list_frozen()}
    parts = [part for task in (0, 2, 3, 4) for part in net.list_parts(task)]
    parts += [part for task in (2, 3, 4) for part in net.list_divergence(task)]
    assert frozen == {id(weight) for weight in list_parameters(parts)}
    unused = [weight for part in parts[2:] for weight in list_parameters([part])]
    assert all((weight.grad == 0).all() for weight in unused)
    assert all((weight.grad != 0).any() for weight in net.divergence[0].parameters())


def test_the_variant_of_the_seeds_moves_the_encoder_and_its_newest_task():
    net, images = make(task="dytox_seed").train(), torch.rand(2, 1, 8, 8)
    net.add_task()
    output = net(images)
    assert (output.divergence, output.new, net.list_divergence(1)) == (None, 2, [])
    output.logits[:, :4].sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())
    frozen = {id(weight) for weight in net.list_frozen()}
    names = {".".join(name.split(".")[:2]) for name, weight in net.named_parameters() if id(weight) in frozen}
    assert names == {f"{part}.{task}" for part in ("tokens", "attentions", "heads") for task in (0, 2, 3, 4)}


def test_what_is_tuned_is_the_decoder_alone():
    net = make()
    net.add_task()
    tuned = {id(weight) for weight in net.list_tuned()}
    names = {name.split(".")[0] for name, weight in net.named_parameters() if id(weight) in tuned}
    assert names == {"norm", "tab", "tokens", "heads"}
    assert not tuned & {id(weight) for part in net.list_parts(2) for weight in list_parameters([part])}


@pytest.mark.parametrize("task", ["dytox", "dytox_seed"])
def test_widths_reach_the_blocks_and_the_decoder(task):
    net, images = make("ffn=matformer", task=task), torch.rand(2, 1, 8, 8)
    assert net.widths == (1.0, 0.5, 0.25, 0.125)
    assert torch.equal(net(images, width=1.0).logits, net(images).logits)
    assert not torch.equal(net(images, width=0.5).logits, net(images).logits)


def test_the_number_of_tasks_is_in_the_weights():
    net, other = make(), make()
    net.set_known(3, first=2)
    other.load_state_dict(net.state_dict())
    assert (other.known, other.first) == (3, 2)
    assert other(torch.rand(1, 1, 8, 8)).logits[0, 6:].tolist() == [UNKNOWN] * 4


def test_tokens_are_drawn_from_a_narrow_normal():
    tokens = torch.cat(list(make("model.tokens_per_task=200").tokens))
    assert tokens.std().item() == pytest.approx(0.02, rel=0.05)


def test_padding_is_not_read():
    net = make()
    x_BPC, segments = torch.randn(1, 4, net.shape.dim), torch.tensor([[1, 1, 1, 0]])
    token, context = net.tokens[0].expand(1, 1, -1), ForwardContext(1, causal=False)
    padded = net.tab(token, token, net.tab.read_patches(x_BPC, segments), context)
    torch.testing.assert_close(padded, net.tab(token, token, net.tab.read_patches(x_BPC[:, :3]), context))


def test_tasks_that_do_not_fit_are_refused():
    net = make()
    with pytest.raises(ConfigError, match=r"has \[2, 2, 2, 2, 2\] classes in its tasks, and the data have \[5, 5\]"):
        net.bind_tasks([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    with pytest.raises(ConfigError, match=r"DyTox learns classes task by task, and the tasks of these data have none"):
        net.bind_tasks(None)
    with pytest.raises(ConfigError, match=r"tasks=11 leaves a task without a class, of 10; use fewer"):
        make("model.tasks=11")
    net.set_known(5, first=4)
    with pytest.raises(AptlabError, match=r"all 5 tasks are known; build the network with more \(model.tasks\)"):
        net.add_task()
