"""Tokenizers of the kinds that published families use, trained on a page of text and written as their folders are.

Each function gives the library's tokenizer; FAMILIES names the files that stand with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers as tk
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAGE = [
    "The river runs past the mill, and the miller's daughter counts 1024 sacks of flour; it doesn't matter which.",
    "def main():\n    for i in range(10):\n        print(i, 'naïve café')\n\treturn None\n",
    "Ein Fluß fließt, une rivière coule, 河水流过磨坊，面粉装满了袋子。 Привет, мир! 🙂👩‍👧",
    "  two spaces, then a line\r\n\r\nand 3.14159 = pi? YES!!! <not a marker> [nor this] {or that}",
] * 3
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3_CHAT = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
PHI3_CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GLM_CHAT = (
    "[gMASK]<sop>{% for item in messages %}<|{{ item['role'] }}|>\n{{ item['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_bytes(*splits: Any, specials: list[str], vocab: int = 420, normalizer: Any = None, **model: Any) -> Any:
    """Byte-level BPE behind `splits`; specials get the last ids, as in families that add them to a trained one."""
    fast = tk.Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)
    fast.pre_tokenizer = pre_tokenizers.Sequence([*splits, last]) if splits else last
    fast.decoder = decoders.ByteLevel()
    if normalizer is not None:
        fast.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast.train_from_iterator(
        PAGE, trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    )
    if model:
        tree = json.loads(fast.to_str())
        tree["model"] |= model
        fast = tk.Tokenizer.from_str(json.dumps(tree))
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return fast


def train_pieces(specials: list[str], *, normalizer: Any = None, pre_tokenizer: Any = None, vocab: int = 460) -> Any:
    """BPE of characters with byte fallback, as SentencePiece trains it; specials get the first ids."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    fast = tk.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer is not None:
        fast.normalizer = normalizer
    if pre_tokenizer is not None:
        fast.pre_tokenizer = pre_tokenizer
    words = [*specials, *fallback]
    fast.train_from_iterator(PAGE, trainers.BpeTrainer(vocab_size=vocab, special_tokens=words, show_progress=False))
    tree = json.loads(fast.to_str())
    tree["added_tokens"] = [entry for entry in tree["added_tokens"] if entry["content"] in specials]
    fast = tk.Tokenizer.from_str(json.dumps(tree))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if "<bos>" not in specials else parts)
    return fast


def put_in_front(fast: Any, *names: str, behind: str = "") -> Any:
    """The tokenizer with a post-processor that writes `names` before a text."""
    front = " ".join([*names, "$A", behind]).strip()
    known = [(name, fast.token_to_id(name)) for name in (*names, *([behind] if behind else []))]
    post = processors.TemplateProcessing(single=front, pair=f"{front} $B", special_tokens=known)
    fast.post_processor = post
    return fast


def isolate(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def make_gpt2() -> Any:
    fast = train_bytes(specials=["<|endoftext|>"])
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    return fast


def make_llama3() -> Any:
    names = ["begin_of_text", "end_of_text", "eot_id", "eom_id", "start_header_id", "end_header_id"]
    fast = train_bytes(isolate(LLAMA3), specials=[f"<|{name}|>" for name in names], ignore_merges=True)
    bos = ("<|begin_of_text|>", fast.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]}:1 $B:1", special_tokens=[bos]
    )
    fast.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return fast


def make_qwen(*, thinks: bool = False) -> Any:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fast = train_bytes(isolate(QWEN2), specials=specials, normalizer=normalizers.NFC())
    if thinks:
        fast.add_tokens([AddedToken(name, normalized=False) for name in ("<think>", "</think>", "<tool_call>")])
    return fast


def make_phi2() -> Any:
    fast = train_bytes(specials=["<|endoftext|>"])
    fast.add_tokens([AddedToken(" " * count, normalized=True) for count in range(7, 1, -1)] + [AddedToken("\t\t")])
    return fast


def make_llama2() -> Any:
    """The form of older files: the space is put in front by a normalizer, and nothing splits the text."""
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return put_in_front(train_pieces(["<unk>", "<s>", "</s>"], normalizer=spaces), "<s>")


def make_mistral() -> Any:
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return put_in_front(train_pieces(["<unk>", "<s>", "</s>"], pre_tokenizer=spaces), "<s>")


def make_phi3() -> Any:
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast = train_pieces(["<unk>", "<s>", "</s>"], normalizer=spaces)
    names = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>"]
    fast.add_special_tokens([AddedToken(name, rstrip=True, normalized=False, special=True) for name in names])
    return fast


def make_gemma() -> Any:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<mask>"]
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    return put_in_front(train_pieces(names, normalizer=normalizers.Replace(" ", "▁"), pre_tokenizer=split), "<bos>")


def make_glm() -> Any:
    specials = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    return put_in_front(train_bytes(isolate(LLAMA3), specials=specials), "[gMASK]", "<sop>")


def make_deepseek() -> Any:
    splits = [isolate(r"\p{N}{1,3}"), isolate(r"[一-龥぀-ゟ゠-ヿ]+"), isolate(GPT2)]
    fast = train_bytes(*splits, specials=["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    fast.add_tokens([AddedToken("<｜User｜>", normalized=False), AddedToken("<｜Assistant｜>", normalized=False)])
    return put_in_front(fast, "<｜begin▁of▁sentence｜>")


def make_cohere() -> Any:
    specials = ["<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]
    fast = train_bytes(pre_tokenizers.Digits(True), specials=specials, normalizer=normalizers.NFC())
    return put_in_front(fast, "<BOS_TOKEN>")


def make_xglm() -> Any:
    """Unigram, which has its end of text in the vocabulary, and puts that before a text."""
    fast = tk.Tokenizer(models.Unigram())
    fast.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False)
    fast.train_from_iterator(PAGE, trainer)
    return put_in_front(fast, "</s>")


def make_wordpiece() -> Any:
    fast = tk.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece(cleanup=False)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    fast.train_from_iterator(PAGE, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False))
    return put_in_front(fast, "[CLS]")


@dataclass(frozen=True)
class TokenizerFamily:
    """A tokenizer and what its folder says: tokenizer_config.json, names of tokens that end a text, chat template.

    apart  the chat template is a file of its own
    """

    make: Callable[[], Any]
    config: dict[str, Any]
    ends: tuple[str, ...]
    chat: str | None = None
    apart: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def named(kind: str, bos: str | None, eos: str, **rest: Any) -> dict[str, Any]:
    return {"tokenizer_class": kind, "bos_token": bos, "eos_token": eos, "model_max_length": 4096, **rest}


FAST = "PreTrainedTokenizerFast"
TEXT = "<|endoftext|>"
BOS3, EOS3 = "<|begin_of_text|>", "<|end_of_text|>"
FAMILIES = {
    "gpt2": TokenizerFamily(make_gpt2, named("GPT2Tokenizer", TEXT, TEXT, unk_token=TEXT), (TEXT,)),
    "llama3": TokenizerFamily(
        make_llama3, named(FAST, BOS3, "<|eot_id|>"), (EOS3, "<|eom_id|>", "<|eot_id|>"), LLAMA3_CHAT
    ),
    "qwen2": TokenizerFamily(
        make_qwen,
        named("Qwen2Tokenizer", None, "<|im_end|>", add_bos_token=False, pad_token=TEXT),
        ("<|im_end|>", TEXT),
        CHATML,
    ),
    "qwen3": TokenizerFamily(
        lambda: make_qwen(thinks=True),
        named("Qwen2Tokenizer", None, "<|im_end|>", pad_token=TEXT),
        ("<|im_end|>", TEXT),
        CHATML,
        apart=True,
    ),
    "phi2": TokenizerFamily(make_phi2, named(FAST, TEXT, TEXT, add_prefix_space=False), (TEXT,)),
    "llama2": TokenizerFamily(
        make_llama2, named(FAST, "<s>", "</s>", unk_token="<unk>", add_bos_token=True, legacy=True), ("</s>",)
    ),
    "mistral": TokenizerFamily(
        make_mistral,
        named("LlamaTokenizer", "<s>", "</s>", unk_token="<unk>", legacy=False),
        ("</s>",),
        MISTRAL_CHAT,
    ),
    "phi3": TokenizerFamily(
        make_phi3,
        named(FAST, "<s>", TEXT, unk_token="<unk>", add_bos_token=False),
        (TEXT, "<|end|>"),
        PHI3_CHAT,
    ),
    "gemma": TokenizerFamily(
        make_gemma,
        named("GemmaTokenizer", "<bos>", "<eos>", unk_token="<unk>", pad_token="<pad>"),
        ("<eos>", "<end_of_turn>"),
        GEMMA_CHAT,
        apart=True,
    ),
    "glm4": TokenizerFamily(
        make_glm, named(FAST, None, TEXT, pad_token=TEXT), (TEXT, "<|user|>", "<|observation|>"), GLM_CHAT, apart=True
    ),
    "deepseek": TokenizerFamily(
        make_deepseek,
        named(FAST, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", add_bos_token=True),
        ("<｜end▁of▁sentence｜>",),
        "{{ bos_token }}{% for m in messages %}{{ '<｜User｜>' + m['content'] }}{% endfor %}<｜Assistant｜>",
    ),
    "cohere": TokenizerFamily(
        make_cohere, named(FAST, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"), ("<|END_OF_TURN_TOKEN|>", "<EOS_TOKEN>")
    ),
    "xglm": TokenizerFamily(make_xglm, named(FAST, "<s>", "</s>", unk_token="<unk>"), ("</s>",)),
    "wordpiece": TokenizerFamily(
        make_wordpiece, named(FAST, "[CLS]", "[SEP]", unk_token="[UNK]", clean_up_tokenization_spaces=False), ("[SEP]",)
    ),
}


def write_tokenizer(name: str, folder: Path) -> Any:
    """The files of a family's tokenizer in `folder`; returns the library's tokenizer."""
    family = FAMILIES[name]
    fast, config = family.make(), dict(family.config)
    folder.mkdir(parents=True, exist_ok=True)
    if family.chat and not family.apart:
        config["chat_template"] = family.chat
    elif family.chat:
        (folder / "chat_template.jinja").write_text(family.chat, encoding="utf-8")
    (folder / "tokenizer.json").write_text(fast.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    marks = {key: value for key, value in config.items() if key.endswith("_token") and isinstance(value, str)}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, ensure_ascii=False), encoding="utf-8")
    return fast
