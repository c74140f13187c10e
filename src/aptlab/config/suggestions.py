"""Where a key stands that was written at another place: words of other tools, and the keys of a composed config.

Everything here is asked only where a message is due, so it may read option files and signatures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aptlab.config.files import read_config_file
from aptlab.config.search_path import OptionIndex
from aptlab.config.static.signatures import read_signature
from aptlab.errors import ConfigError, find_near, suggest_option

SHOWN = 4  # places that one message names
PLAIN = (str, int, float, list, type(None))  # values; what a slot has taken from elsewhere is none

# Our key, with what is different about it -> what other tools call it.
_OTHER_WORDS = {
    "ckpt": "checkpoint resume resume_from resume_from_checkpoint init_from pretrained",
    "context": "seq_len seq_length sequence_length max_seq_len max_seq_length block_size context_length ctx_len n_ctx",
    "vocab": "vocab_size n_vocab",
    "precision": "dtype mixed_precision fp16 bf16 amp",
    "job": "run_name exp_name experiment experiment_name",
    "run_dir": "output_dir out_dir save_dir",
    "data.batch": "batch_size bs micro_batch micro_batch_size train_batch_size per_device_train_batch_size",
    "data.files": "files file dataset data_path train_file train_data data.path data.dir data.text",
    "data.repo": "repo dataset_name hf_dataset",
    "optim": "optimizer",
    "optim.lr": "lr learning_rate max_lr peak_lr",
    "optim.weight_decay": "wd decay",
    "optim.beta1": "betas",
    "schedule": "scheduler lr_scheduler lr_schedule",
    "schedule.warmup (a share of all steps)": "warmup_steps warmup_iters warmup_ratio num_warmup_steps",
    "schedule.final (a share of the peak)": "min_lr",
    "trainer.max_steps": "steps num_steps n_steps total_steps train_steps iters max_iters iterations",
    "trainer.max_epochs": "epochs num_epochs n_epochs num_train_epochs",
    "trainer.accumulate_grad_batches": "grad_accum grad_accumulation gradient_accumulation_steps accumulate",
    "trainer.gradient_clip_val": "clip grad_clip clip_grad clip_grad_norm max_grad_norm gradient_clip",
    "trainer.log_every_n_steps": "log_every log_interval log_steps logging_steps",
    "validate.every": "validate_every val_every val_interval eval_every eval_interval eval_steps",
    "callbacks.checkpoints.every": "save_every save_steps save_interval checkpoint_every ckpt_every",
    "callbacks.checkpoints.keep": "save_total_limit keep_last",
    "size": "model_size",
    "size.dim": "d_model n_embd embed_dim hidden_size model_dim",
    "size.depth": "layers n_layer n_layers num_layers num_hidden_layers",
    "size.heads": "n_head n_heads num_heads num_attention_heads",
    "size.kv_heads": "n_kv_heads num_kv_heads num_key_value_heads",
    "size.head_dim": "d_head",
    "size.hidden": "d_ff ffn_dim ffn_hidden intermediate_size",
    "model.tied": "tie_word_embeddings tie_weights tied_embeddings",
    "rope.base": "theta rope_theta rope_base",
    "rope.factor": "rope_factor rope_scaling scaling_factor",
    "device=ddp device.devices": "gpus num_gpus n_gpus devices",
    "max_new_tokens": "max_tokens max_length num_tokens n_tokens length",
    "temperature": "temp",
}
WORDS = {word: key for key, words in _OTHER_WORDS.items() for word in words.split()}

# (command, key) -> what to type, where that is more than another key.
HINTS = {
    ("train", "data.name"): (
        "data.repo=owner/name chooses a data set of the Hub and source.config its configuration; data.files=… "
        "chooses files of yours"
    ),
    ("train", "epoch"): "trainer.max_epochs=… is the number of passes over the text",
}


def suggest_key(key: str, command: str, plain: Mapping[str, Any], roots: Collection[str], index: OptionIndex) -> str:
    """The tail of a message about a key that the command does not have: where it stands, or the nearest one."""
    if hint := find_hint(command, key):
        return f"; {hint}"
    root, _, rest = key.partition(".")
    near = find_near(root, roots)
    if near is not None and rest and _takes_key(plain, f"{near}.{rest}"):
        return f"; did you mean {near}?"
    word = key.rpartition(".")[2]
    if found := find_listed(word, plain, roots) or find_possible(word, plain, roots, index):
        return f"; {found}"
    return suggest_option(root, roots)


def find_hint(command: str, key: str) -> str | None:
    """What to type for a key that means something else here, or None."""
    return HINTS.get((command, key))


def find_option_hint(command: str, group: str, option: str, index: OptionIndex) -> str | None:
    """The same for an option of a group: `eval=ruler` and `evals=ruler` name an eval to a training run."""
    if command != "train" or group not in ("eval", "evals") or option not in index.groups.get("eval", {}):
        return None
    return (
        f"a run measures what evals holds: +eval@evals.{option}={option} adds this one, and aptlab eval ckpt=last "
        f"eval={option} measures a trained run"
    )


def find_listed(word: str, plain: Mapping[str, Any], roots: Collection[str], *, skip: str = "") -> str | None:
    """`did you mean data.batch?` for what other tools call a key, or for the end of keys that are listed; else None.

    plain  the composed configuration
    skip   the key that was written
    """
    known = WORDS.get(skip) or WORDS.get(word)
    if known and known.partition(" ")[0].partition("=")[0].partition(".")[0] in roots:
        return f"did you mean {known}?"
    places = [key for key in list_keys(plain) if key.rpartition(".")[2] == word and key != skip]
    return f"did you mean {join_words(places)}?" if places else None


def find_possible(word: str, plain: Mapping[str, Any], roots: Collection[str], index: OptionIndex) -> str | None:
    """The same for keys that classes of the configuration take too, then for those of options that are not chosen."""
    places = [key for key in list_open_keys(plain) if key.rpartition(".")[2] == word]
    return f"did you mean {join_words(places)}?" if places else _describe_options(word, index, roots)


def join_words(words: list[str]) -> str:
    """`a`, `a or b`, `a, b, c or …`."""
    shown = words[:SHOWN] + (["…"] if len(words) > SHOWN else [])
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def list_keys(node: Any, path: str = "") -> Iterator[str]:
    """Every key of a plain configuration that holds a value of its own: `data.batch`; slots are left out."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        full = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from list_keys(value, full)
        elif not str(key).startswith("_") and isinstance(value, PLAIN) and not str(value).startswith("${"):
            yield full


def list_open_keys(node: Any, path: str = "") -> Iterator[str]:
    """Every parameter that the classes of a plain configuration take and that it does not list."""
    if not isinstance(node, Mapping):
        return
    for name in _read_parameters(node) if path else ():
        if name not in node:
            yield f"{path}.{name}"
    for key, value in node.items():
        yield from list_open_keys(value, f"{path}.{key}" if path else str(key))


def _read_parameters(node: Mapping[str, Any]) -> tuple[str, ...]:
    target = node.get("_target_")
    try:
        known = read_signature(target) if isinstance(target, str) else None
    except ConfigError:  # told where the class is checked
        return ()
    return tuple(known.parameters) if known else ()


def _takes_key(plain: Mapping[str, Any], key: str) -> bool:
    """Whether the configuration lists the key, or the class of its node takes it."""
    *parents, last = key.split(".")
    node: Any = plain
    for part in parents:
        node = node.get(part) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping) and (last in node or last in _read_parameters(node))


def _describe_options(word: str, index: OptionIndex, roots: Collection[str]) -> str | None:
    """Options that are not chosen and have the word as a key, with the whole key; of the first group that has any."""
    for group, options in sorted(index.groups.items()):
        found: dict[str, list[str]] = {}
        for option in options.values() if group in roots else ():
            for key in list_keys(read_config_file(option.path), group):
                if key.rpartition(".")[2] == word:
                    found.setdefault(key, []).append(f"{group}={option.name}")
        for key, names in found.items():
            return f"{key} is a key of {join_words(names)}"
    return None
