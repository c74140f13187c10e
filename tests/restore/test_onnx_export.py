"""`aptlab export format=onnx`: equal logits in onnxruntime at any batch and length, or no folder."""

import json
from functools import partial

import pytest
import torch

from aptlab.commands import export as export_command
from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention import FullAttention
from aptlab.nn.positions.rope import Dynamic, Growth, IRope, Linear, Llama3, LongRoPE, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow
from aptlab.restore import onnx_export
from aptlab.restore.onnx_export import check_onnx_packages, compare_graph, export_graph, write_graph
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.commands.test_export import loaded_of, saved

ORIGINAL = 16
SHAPE = Shape(dim=32, depth=2, heads=4, kv_heads=2, head_dim=16, hidden=48)
TO = {"factor": 4.0, "original_len": ORIGINAL}
LISTS = {"short": (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7), "long": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0)}
MODELS = {
    "standard": {"rope": Standard()},
    "linear, sliding": {
        "rope": Linear(**TO),
        "attention": partial(FullAttention, window=SlidingWindow(size=5, full_every=2)),
    },
    "dynamic": {"rope": Dynamic(**TO)},
    "yarn": {"rope": YaRN(**TO)},
    "llama3": {"rope": Llama3(**TO)},
    "longrope": {"rope": LongRoPE(**TO, **LISTS)},
    "irope": {"rope": IRope(interval=2, chunk=7, growth=Growth(floor=5, scale=0.3))},
}


@pytest.mark.slow  # the exporter takes some seconds
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_the_same_logits_below_and_beyond_the_trained_length(name, tmp_path):
    pytest.importorskip("onnxruntime")
    net = make_tiny_decoder(shape=SHAPE, gain=15.0, **MODELS[name])
    write_graph(net, tmp_path / "model.onnx")
    lengths = [1, 2, ORIGINAL, ORIGINAL + 1, 4 * ORIGINAL]
    gaps = compare_graph(net, tmp_path / "model.onnx", lengths)
    assert list(gaps) == lengths
    assert max(gaps.values()) <= 1e-4
    assert net(make_random_tokens(2, 4 * ORIGINAL)).logits.abs().max() > 5


@pytest.mark.slow
def test_the_folder_describes_the_graph(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    loaded = loaded_of("rope=longrope", "rope.original_len=32", "rope.factor=4")
    (line,) = export_graph(loaded, tmp_path / "out")
    assert line.startswith(f"written {tmp_path / 'out'}: model.onnx, off by ")
    assert line.endswith(f"in onnxruntime {onnxruntime.__version__} at 5, 32, 33, 128 tokens")
    files = ["model.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    found = json.loads((tmp_path / "out" / "model.json").read_text())
    assert found["rope"]["factor"] == 4
    assert (found["context"], found["original_length"], found["longest"]) == (32, 32, 128)
    assert found["tokenizer"] == ["tokenizer.json", "tokenizer_config.json"]
    assert found["outputs"]["logits"]["sizes"] == ["batch", "sequence", 257]
    with pytest.raises(ConfigError, match="already holds a model; give another folder, or force=true"):
        export_graph(loaded, tmp_path / "out")


@pytest.mark.slow
def test_the_command_writes_a_graph(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    run = saved(tmp_path / "run", "rope=yarn", "rope.original_len=32")
    assert export_command.run([f"ckpt={run}", "format=onnx"]) == 0
    assert f"written {run / 'onnx'}: model.onnx" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="dtype=bfloat16 with format=onnx: the graph is float32"):
        export_command.run([f"ckpt={run}", "for=onnx", "dtype=bfloat16", "force=true"])


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx_that_is_not_there", "json"))
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx_that_is_not_there; pip install 'aptlab\[onnx\]'"):
        check_onnx_packages()


@pytest.mark.slow
def test_a_graph_of_other_logits_is_not_written(tmp_path):
    pytest.importorskip("onnxruntime")
    net = make_tiny_decoder(shape=SHAPE, gain=15.0)
    write_graph(net, tmp_path / "model.onnx")
    with torch.no_grad():
        net.embed.weight[3] += 1
    with pytest.raises(
        AptlabError, match=r"computes other logits from this graph, off by .* at 40 tokens, and nothing"
    ):
        compare_graph(net, tmp_path / "model.onnx", [40])


class Turning(torch.nn.Module):
    """A head whose form goes by its values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.slow
def test_a_model_that_no_trace_follows_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    net = make_tiny_decoder()
    net.head = Turning()
    with pytest.raises(ConfigError, match=r"cannot be exported to format=onnx: torch's exporter says: .*keep the "):
        write_graph(net, tmp_path / "model.onnx")
