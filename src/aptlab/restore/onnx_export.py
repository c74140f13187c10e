"""A loaded network as an ONNX graph from tokens to logits, written only if onnxruntime computes the same logits.

Rotations are the rule's own tables, stored in the graph, so that every rule comes along that a trace can follow:
also those that no config.json names. Legend: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.errors import AptlabError, ConfigError
from aptlab.restore.hf_export import check_output_free, replace_folder
from aptlab.restore.special_tokens import collect_token_ids

if TYPE_CHECKING:
    import torch

    from aptlab.models import Decoder
    from aptlab.restore.load import LoadedModel

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
GRAPH, DESCRIPTION = "model.onnx", "model.json"
GRAPH_FILES = (GRAPH, DESCRIPTION)
OPSET = 20
TOLERANCE = 1e-4  # of logits, relative to the largest where that is above 1
PROTOBUF = 1_500_000_000  # bytes of weights from which they lie beside the graph; a protobuf holds 2 GiB
LONGEST_CHECK = 1024  # tokens; a rule that switches by length is checked on both sides of it, whatever they are


def check_onnx_packages() -> None:
    """Raises ConfigError naming what of the extra `onnx` is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"format=onnx needs {', '.join(missing)}; pip install 'aptlab[onnx]'")


def export_graph(loaded: LoadedModel, out: str | Path, *, dtype: str = "float32", force: bool = False) -> list[str]:
    """Write a loaded network to the folder `out`, whole or not at all; returns lines for the user.

    The folder has model.onnx (input `tokens` int64 [B, T], output `logits` [B, T, V], B and T free), model.json with
    the rule and the lengths, and the tokenizer's two files. Raises ConfigError for what no graph of any length holds,
    AptlabError where onnxruntime computes other logits.
    """
    from aptlab.models.hf import build_tokenizer_files

    check_onnx_packages()
    if dtype != "float32":
        raise ConfigError(f"dtype={dtype} with format=onnx: the graph is float32; onnxruntime's tools convert it")
    refuse_memory(loaded.net)
    out = Path(out)
    check_output_free(out, force=force, files=GRAPH_FILES)
    longest = max([rule.stretched_length(loaded.context) for rule in list_rules(loaded.net)], default=loaded.context)
    tokenizer = build_tokenizer_files(loaded.tokenizer.state(), longest=longest)
    gaps: dict[int, float] = {}

    def fill(folder: Path) -> None:
        write_graph(loaded.net, folder / GRAPH)
        gaps.update(compare_graph(loaded.net, folder / GRAPH, choose_lengths(loaded)))
        description = describe_graph(loaded, gaps, longest=longest, tokenizer=sorted(tokenizer))
        for name, text in {**tokenizer, DESCRIPTION: json.dumps(description, indent=2) + "\n"}.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")

    replace_folder(out, fill)
    lengths = ", ".join(map(str, gaps))
    runtime = importlib.metadata.version("onnxruntime")
    return [f"written {out}: {GRAPH}, off by {max(gaps.values()):.1g} in onnxruntime {runtime} at {lengths} tokens"]


def refuse_memory(net: Decoder) -> None:
    """ConfigError for a model that keeps a memory from pass to pass, which a graph of one pass does not hand on."""
    from aptlab.nn.memory import Memory

    for block in net.each_block():
        for _, mixer in block.mixers():
            if isinstance(mixer, Memory):
                raise ConfigError(
                    f"memory={mixer.option} cannot be exported to format=onnx: the graph reads one text at once, and "
                    "would drop what is kept of earlier segments; train with memory=none to export, or keep the "
                    "checkpoint and use `aptlab generate` and `aptlab eval`"
                )


def write_graph(net: Decoder, path: Path) -> None:
    """The graph of a decoder with free batch and length; ConfigError where a trace needs a length."""
    import torch

    wrapped = wrap_logits(net)
    example = torch.zeros((2, 24), dtype=torch.long)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    weights = sum(weight.numel() * weight.element_size() for weight in net.parameters())
    try:
        with silence_exporter():
            torch.onnx.export(
                wrapped,
                (example,),
                str(path),
                dynamo=True,
                opset_version=OPSET,
                input_names=["tokens"],
                output_names=["logits"],
                dynamic_shapes=(dims,),
                external_data=weights > PROTOBUF,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever a layer raises
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(
            f"this model cannot be exported to format=onnx: torch's exporter says: {reason}; keep the checkpoint and "
            "use `aptlab generate` and `aptlab eval`, or try format=hf"
        ) from error


@contextlib.contextmanager
def silence_exporter() -> Iterator[None]:
    """Without the exporter's advice on packages and on its own graph; what it cannot do is raised all the same."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def wrap_logits(net: Decoder) -> torch.nn.Module:
    """A module that takes tokens [B, T] and gives logits [B, T, V] alone."""
    import torch

    class TokensToLogits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.net(tokens).logits

    return TokensToLogits().eval()


def list_rules(net: Decoder) -> list[Any]:
    """The rotary rules of a decoder's layers."""
    return [rotary.rule for rotary in net.rotaries]


def choose_lengths(loaded: LoadedModel) -> list[int]:
    """Tokens at which the graph is compared: few, the trained length, four times as many; both sides of a switch."""
    lengths = {5, min(loaded.context, LONGEST_CHECK // 4), min(4 * loaded.context, LONGEST_CHECK)}
    for rule in list_rules(loaded.net):
        if rule.scaling is not None and (rule.switches_by_length or rule.scaling.original_len < LONGEST_CHECK):
            lengths |= {rule.scaling.original_len, rule.scaling.original_len + 1}
    return sorted(lengths)


def compare_graph(net: Decoder, path: Path, lengths: list[int]) -> dict[int, float]:
    """The largest difference of logits by length, two rows each; AptlabError where one is beyond the tolerance."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    gaps = {}
    for length in lengths:
        tokens = torch.randint(net.vocab, (2, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            expected = net(tokens).logits
        got = torch.from_numpy(session.run(["logits"], {"tokens": tokens.numpy()})[0])
        gaps[length] = (got - expected).abs().max().item()
        if not gaps[length] <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise AptlabError(
                f"onnxruntime {onnxruntime.__version__} computes other logits from this graph, off by "
                f"{gaps[length]:.3g} at {length} tokens, and nothing is written; export format=hf, or another version "
                "of torch or onnxruntime"
            )
    return gaps


def describe_graph(
    loaded: LoadedModel, gaps: dict[int, float], *, longest: int, tokenizer: list[str]
) -> dict[str, Any]:
    """What a program that runs the graph must know, as plain JSON."""
    lengths = [rule.scaling.original_len for rule in list_rules(loaded.net) if rule.scaling is not None]
    return {
        "graph": GRAPH,
        "inputs": {"tokens": {"dtype": "int64", "sizes": ["batch", "sequence"]}},
        "outputs": {"logits": {"dtype": "float32", "sizes": ["batch", "sequence", loaded.net.vocab]}},
        "rope": loaded.config["model"]["positions"]["rope"],
        "context": loaded.context,
        "original_length": min(lengths, default=loaded.context),
        "longest": longest,
        **collect_token_ids(loaded.tokenizer),
        "tokenizer": tokenizer,
        "step": loaded.step,
        "opset": OPSET,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *PACKAGES)},
        "largest_difference": {str(length): gap for length, gap in gaps.items()},
    }
