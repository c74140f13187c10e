"""The README.md of an exported model: what it is, how it was trained, what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aptlab.shown import show_markdown

HEADER = """---
library_name: transformers
pipeline_tag: text-generation
tags: [aptlab]
---
"""
USE = """
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```
"""


def render_model_card(
    config: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    parameters: int,
    notes: Sequence[str],
    result: Mapping[str, Any] | None,
    reach: int | None = None,
) -> str:
    """Markdown from the exported config.json, the checkpoint's "aptlab" entry, and result.json where there is one.

    reach  tokens of a text that the model is made for; None: max_position_embeddings
    """
    rope = _spoken(config["rope_parameters"])
    size = f"{config['num_hidden_layers']} layers of width {config['hidden_size']}, {parameters:,} parameters"
    heads = f"{config['num_attention_heads']} query and {config['num_key_value_heads']} key/value heads"
    lines = [f"# {config['architectures'][0]}, trained with aptlab", "", f"- {size}, {heads}", f"- rope: {rope}"]
    lines += [
        f"- made for {reach or config['max_position_embeddings']} tokens, {meta.get('step', 0)} optimizer steps taken"
    ]
    lines += [f"- {show_markdown(note)}" for note in notes]
    lines += _training(meta) + (_result(result) if result else [])
    return HEADER + "\n".join(lines) + "\n" + USE


def _spoken(parameters: Mapping[str, Any]) -> str:
    """key=value, lists by their length, and what differs between kinds of layers one after the other."""
    words = []
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            words.append(f"{key} ({_spoken(value)})")
        else:
            words.append(f"{key}={f'{len(value)} numbers' if isinstance(value, list) else value}")
    return ", ".join(words)


def _training(meta: Mapping[str, Any]) -> list[str]:
    chosen = meta.get("choices", {}).items()
    choices = [show_markdown(f"{group}={option}") for group, option in chosen if option is not None]
    overrides = [show_markdown(word) for word in meta.get("overrides", [])]
    lines = ["", "## Training", "", f"Options: {' '.join(choices)}" if choices else "Options: not recorded"]
    return [*lines, "", f"Overrides: {' '.join(overrides) if overrides else 'none'}"]


def _result(result: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Result", "", "| measure | value |", "|---|---|"]
    lines += [
        f"| {show_markdown(name)} | {value:.6g} |"
        for name, value in result.get("metrics", {}).items()
        if value is not None
    ]
    if result.get("lengths"):
        lines += ["", "| tokens | loss (nats per token) | bits per byte |", "|---|---|---|"]
        lines += [f"| {row['length']} | {row['loss']:.4f} | {row['bpb']:.4f} |" for row in result["lengths"]]
    return lines
