"""Tokenizers lose nothing, know nothing of the validation text, and come back from a checkpoint."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import Tokenizer

from aptlab.data.tokenizers import BPE, ByteTokenizer, JsonTokenizer, TokenizerFile, restore_tokenizer
from aptlab.errors import CheckpointError, ConfigError, DataError

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7"
HARD = [
    *("", "a", " leading", "tabs\t\n\r\n", "日本語のテキスト", FAMILY, "e\u0301 ﷺ \u202e"),
    *("\x00\x1f", "<eos> </s>", "\u2028\ufffd"),
]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory, make_texts):
    texts = [text for _, text in make_texts().documents()]
    return BPE(vocab=320).prepare(lambda: iter(texts), key="k", folder=tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(params=["bytes", "bpe"])
def tokenizer(request, bpe):
    return ByteTokenizer() if request.param == "bytes" else bpe


@pytest.mark.parametrize("text", HARD)
def test_every_text_round_trips(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size and i != tokenizer.eos for i in ids)


def test_a_batch_equals_its_texts_alone(tokenizer):
    assert [list(ids) for ids in tokenizer.encode_batch(HARD)] == [tokenizer.encode(text) for text in HARD]


def test_eos_vanishes_in_text_and_is_a_valid_id(tokenizer):
    assert 0 <= tokenizer.eos < tokenizer.vocab_size
    assert tokenizer.decode([*tokenizer.encode("ab"), tokenizer.eos]) == "ab"


def test_state_brings_back_an_equal_tokenizer(tokenizer):
    again = restore_tokenizer(tokenizer.state())
    assert again.state() == tokenizer.state()
    assert (again.key(), again.vocab_size, again.eos) == (tokenizer.key(), tokenizer.vocab_size, tokenizer.eos)
    assert [again.encode(text) for text in HARD] == [tokenizer.encode(text) for text in HARD]


@pytest.mark.parametrize("text", HARD)
def test_a_stream_shows_the_same_text_in_whole_characters(tokenizer, text):
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in [*tokenizer.encode(text), tokenizer.eos]]
    assert "".join(pieces) + stream.finish() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_holds_a_character_until_it_is_complete():
    stream = ByteTokenizer().stream()
    assert [stream.push(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]
    assert stream.push(0xF0) == ""
    assert stream.finish() == "\ufffd"


def test_a_stream_of_random_ids_ends_and_equals_decode_for_bytes():
    ids = random.Random(0).choices(range(257), k=2000)
    stream = ByteTokenizer().stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == ByteTokenizer().decode(ids)


def test_a_bpe_stream_of_broken_characters_does_not_wait_for_ever(bpe):
    broken = bpe.encode("é")[:1]
    stream = bpe.stream()
    shown = [stream.push(token) for token in broken * 10]
    assert sum(bool(piece) for piece in shown) >= 2


def test_bpe_is_deterministic_cached_and_smaller_than_bytes(tmp_path, bpe, make_texts):
    calls = []
    texts = [text for _, text in make_texts().documents()]

    def read():
        calls.append(1)
        return iter(texts)

    first = BPE(vocab=320).prepare(read, key="k", folder=tmp_path)
    second = BPE(vocab=320).prepare(read, key="k", folder=tmp_path)
    assert len(calls) == 1
    assert first.state() == second.state() == bpe.state()
    assert first.vocab_size <= 320
    assert len(first.encode(texts[3])) < len(ByteTokenizer().encode(texts[3])) / 1.5
    BPE(vocab=320).prepare(read, key="other corpus", folder=tmp_path)
    BPE(vocab=330).prepare(read, key="k", folder=tmp_path)
    assert len(calls) == 3


def test_long_words_are_trained_on_in_pieces_and_told_once(tmp_path, caplog):
    caplog.set_level("INFO", logger="aptlab")
    chance = random.Random(0)
    line = "".join(chance.choices("abcdefghijklmnop", k=20_000))
    rule = BPE(vocab=400)
    text = rule.train(iter([line, "an ordinary text", line]))
    assert len(caplog.messages) == 1
    assert caplog.messages[0] == (
        "the text has words of more than 1,024 bytes, one of 20,000; the tokenizer is trained on pieces of them"
    )
    tokenizer = JsonTokenizer(text, "test")
    assert (tokenizer.vocab_size, tokenizer.decode(tokenizer.encode(line))) == (400, line)
    # In pieces: the same as from a text that has them as words of its own.
    pieces = [line[at : at + 1024] for at in range(0, len(line), 1024)]
    assert rule.train(iter([*pieces, "an ordinary text", *pieces])) == text


def test_ordinary_text_gives_the_tokenizer_of_the_library_alone(make_texts):
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    texts = [text for _, text in make_texts().documents()]
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, min_frequency=2, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(iter(texts), trainer=trainer)
    assert BPE(vocab=320).train(iter(texts)) == fast.to_str()


@pytest.mark.parametrize("text", HARD)
def test_bytes_of_tokens_add_up_to_those_of_the_text(tokenizer, text):
    sizes = tokenizer.count_bytes()
    assert sizes.shape == (tokenizer.vocab_size,)
    assert sizes[tokenizer.encode(text)].sum() == len(text.encode())
    assert sizes[tokenizer.eos] == 0


def make_spelled(decoder, pre_tokenizer, vocab, **options):
    """A tokenizer whose words are those of `vocab`, by the longest that fits."""
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Fast

    fast = Fast(models.Unigram([(word, -float(len(vocab) - n)) for n, word in enumerate(vocab)], **options))
    fast.decoder, fast.pre_tokenizer = decoder, pre_tokenizer
    fast.add_tokens([AddedToken("<tab>", special=False)])
    return JsonTokenizer(fast.to_str(), "test", eos="</s>")


def test_bytes_of_tokens_that_are_no_bytes_are_those_that_they_add_to_a_text():
    from tokenizers import decoders, pre_tokenizers

    spelled = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    vocab = ["<unk>", "</s>", "a", "\u2581", "\u2581the", "<0xE4>", "<0xB8>", "日", "s"]
    tokenizer = make_spelled(spelled, pre_tokenizers.Metaspace(), vocab, unk_id=0, byte_fallback=True)
    assert tokenizer.count_bytes().tolist()[2:] == [1, 1, 4, 1, 1, 3, 1, 5]


def test_a_corpus_too_small_for_the_vocabulary_gives_fewer_tokens(tmp_path):
    tokenizer = BPE(vocab=4096).prepare(lambda: iter(["abab"]), key="k", folder=tmp_path)
    assert 257 <= tokenizer.vocab_size < 300
    assert tokenizer.decode(tokenizer.encode("日本")) == "日本"


def test_bpe_refuses_a_vocabulary_without_room_for_the_bytes():
    with pytest.raises(ConfigError, match=r"vocab=100 cannot hold the 256 bytes and <eos>; smallest: 257"):
        BPE(vocab=100)


def test_a_file_equals_the_tokenizer_it_was_saved_from(tmp_path, bpe):
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe.state()["json"])
    again = TokenizerFile(str(path)).prepare(lambda: iter([]), key="", folder=tmp_path)
    assert again.encode("word1 日本") == bpe.encode("word1 日本")
    assert again.eos == bpe.eos


def test_a_bad_file_is_refused(tmp_path, bpe):
    def prepare(path, eos=None):
        return TokenizerFile(str(path), eos=eos).prepare(lambda: iter([]), key="", folder=tmp_path)

    with pytest.raises(DataError, match=r"^path=.*none\.json cannot be read: No such file.*give a tokenizer"):
        prepare(tmp_path / "none.json")
    path = tmp_path / "bad.json"
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"^path=.*bad\.json is no tokenizer\.json"):
        prepare(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"cannot be read: it is not UTF-8"):
        prepare(path)
    path.write_text(bpe.state()["json"])
    with pytest.raises(ConfigError, match=r"has no token <end>; name one with eos="):
        prepare(path, eos="<end>")
    path.write_text(bpe.state()["json"].replace("<eos>", "<stop>"))
    with pytest.raises(ConfigError, match=r"has no token that ends a document; name one with eos="):
        prepare(path)
    assert prepare(path, eos="<stop>").eos == 0


def test_an_unknown_state_is_refused():
    with pytest.raises(CheckpointError, match="holds a tokenizer of kind 'words'; this aptlab knows bytes and json"):
        restore_tokenizer({"kind": "words"})


def make_json(model, *, added=(), pre_tokenizer=None):
    tree = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    entries = [{"id": number, "content": text, "special": special, **flags} for number, text, special in added]
    return json.dumps(
        {**tree, "pre_tokenizer": pre_tokenizer, "decoder": None, "added_tokens": entries, "model": model}
    )


SPACES = {"type": "WhitespaceSplit"}
LETTERS = {letter: number for number, letter in enumerate("abcdeos<>/ |n", start=1)}
BPE_MODEL = {"type": "BPE", "unk_token": "a", "vocab": {"</s>": 0, **LETTERS}, "merges": []}
MERGED = {"vocab": {"</s>": 0, **LETTERS, "</": 20, "s>": 21}, "merges": [["<", "/"], ["s", ">"], ["</", "s>"]]}
PIECES = [["</s>", 0.0], ["<unk>", 0.0], *([letter, -3.0] for letter in "abcdeos<>/ |n")]
WORDS = {"</s>": 0, "<unk>": 1, "a": 2, "b": 3}
UNMARKED = {
    "not marked special": make_json(BPE_MODEL, added=[(0, "</s>", False)]),
    "no added token, a merge makes it": make_json(BPE_MODEL | MERGED),
    "no added token, a whole word": make_json(BPE_MODEL | {"ignore_merges": True}, pre_tokenizer=SPACES),
    "unigram, marked": make_json({"type": "Unigram", "unk_id": 1, "vocab": PIECES}, added=[(0, "</s>", True)]),
    "unigram, not marked": make_json({"type": "Unigram", "unk_id": 1, "vocab": PIECES}, added=[(0, "</s>", False)]),
    "word level": make_json({"type": "WordLevel", "unk_token": "<unk>", "vocab": WORDS}, pre_tokenizer=SPACES),
    "word piece": make_json(
        {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
        | {"vocab": WORDS},
        pre_tokenizer=SPACES,
    ),
}


@pytest.mark.parametrize("kind", UNMARKED)
def test_the_end_of_text_never_comes_out_of_ordinary_text(kind):
    tokenizer = JsonTokenizer(UNMARKED[kind], kind)
    assert tokenizer.eos == 0
    for text in ("</s>", "a </s> b", "a</s>b", "</s></s>"):
        ids = tokenizer.encode(text)
        assert 0 not in ids
        assert ids
        assert 0 not in tokenizer.encode_batch([text])[0]
    assert tokenizer.encode("a b") == Tokenizer.from_str(UNMARKED[kind]).encode("a b").ids
    again = restore_tokenizer(tokenizer.state())
    assert again.encode("a </s>") == tokenizer.encode("a </s>")


def test_special_tokens_are_read_when_asked_for(tokenizer):
    assert tokenizer.encode("a<eos>b", specials=True) == [
        *tokenizer.encode("a"),
        tokenizer.eos,
        *tokenizer.encode("b"),
    ]
    assert tokenizer.encode_prompt("a<eos>b") == tokenizer.encode("a<eos>b")
    assert tokenizer.encode_prompt("") == [tokenizer.eos]
    assert (tokenizer.prefix, tokenizer.stops, tokenizer.bos) == ((), (tokenizer.eos,), None)


def write_folder(folder, **files):
    post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]}
    post["single"].append({"Sequence": {"id": "A", "type_id": 0}})
    post |= {"pair": post["single"], "special_tokens": {"<s>": {"id": "<s>", "ids": [14], "tokens": ["<s>"]}}}
    tree = json.loads(make_json(BPE_MODEL, added=[(0, "</s>", True), (14, "<s>", True), (15, "<|n|>", True)]))
    (folder / "tokenizer.json").write_text(json.dumps(tree | {"post_processor": post}))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return TokenizerFile(str(folder / "tokenizer.json")).prepare(lambda: iter([]), key="", folder=folder)


def test_the_files_of_a_folder_say_where_texts_begin_and_end(tmp_path):
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "<|n|>",
        "chat_template": "{{ bos_token }}",
    }
    tokenizer = write_folder(
        tmp_path, tokenizer_config=config, generation_config={"eos_token_id": [0, 15]}, config={"eos_token_id": 0}
    )
    assert (tokenizer.bos, tokenizer.prefix, tokenizer.eos, tokenizer.stops) == (14, (14,), 15, (0, 15))
    assert tokenizer.encode_prompt("ab") == tokenizer.encode_prompt("<s>ab") == [14, *tokenizer.encode("ab")]
    assert tokenizer.encode_prompt("") == [14]
    assert tokenizer.encode_documents(["ab", ""])[0].tolist() == [14, *tokenizer.encode("ab")]
    assert tokenizer.encode_chat([{"role": "user", "content": "a"}]) == [14]
    assert tokenizer.decode([14, *tokenizer.encode("ab"), 0, 15]) == tokenizer.decode(tokenizer.encode("ab"))
    assert restore_tokenizer(tokenizer.state()).state() == tokenizer.state()


def test_a_checkpoint_without_these_files_is_what_it_was(tmp_path):
    tokenizer = write_folder(tmp_path, tokenizer_config={"eos_token": "</s>"})
    old = restore_tokenizer({"kind": "json", "json": tokenizer.state()["json"], "eos": "</s>"})
    assert (old.prefix, old.bos, old.stops, old.reads_specials) == ((), None, (0,), False)
    assert old.state() == {"kind": "json", "json": tokenizer.state()["json"], "eos": "</s>"}


def test_a_damaged_file_of_the_folder_is_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"^tokenizer_config\.json is not JSON: .*copy it again, or take it away"):
        write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(DataError, match=r"^tokenizer_config\.json holds a list, a JSON object is needed"):
        write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"tokenizer_config\.json cannot be read: it is not UTF-8"):
        write_folder(tmp_path)
