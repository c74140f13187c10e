"""Imported tokenizers and their models: ids, numbers and texts are those of transformers, and their files come back."""

from __future__ import annotations

import json

import pytest
import torch

from aptlab.data.tokenizers import restore_tokenizer
from aptlab.errors import ConfigError, DataError
from aptlab.restore.hf_export import export_network
from aptlab.restore.hf_import import convert_hf_folder
from aptlab.restore.load import LoadedModel, restore_network
from tests.models.hf.making import transformers
from tests.models.hf.tokenizer_families import FAMILIES, PAGE, write_tokenizer

NEW = 12
TEXTS = [*PAGE[:4], "a", " leading", "trailing  ", "two\n\nlines", "ab" * 30, "\t\ttabs       spaces", "日本 🙂"]
CHAT = [
    {"role": "user", "content": "  How long is the river? "},
    {"role": "assistant", "content": "1024 <sacks>"},
    {"role": "user", "content": "And 3.14?"},
]


class ImportedFamily:
    """A family's folder, the tokenizer and model of transformers for it, and ours."""

    def __init__(self, name, folder):
        self.folder, self.family = folder, FAMILIES[name]
        fast = write_tokenizer(name, folder)
        self.ends = [fast.token_to_id(word) for word in self.family.ends]
        self.model = make_model(fast, folder, self.ends, fast.token_to_id(self.family.config["bos_token"] or ""))
        self.theirs = transformers().AutoTokenizer.from_pretrained(folder)
        self.ours = load(folder)

    @property
    def tokenizer(self):
        return self.ours.tokenizer


def load(folder) -> LoadedModel:
    return restore_network(convert_hf_folder(folder), path=folder / "imported.ckpt")


def make_model(fast, folder, ends, bos):
    """A small Llama that ends some texts: its last end of text is a little likelier than a token of its own texts."""
    kinds = transformers()
    torch.manual_seed(1)
    config = kinds.LlamaConfig(
        vocab_size=fast.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=bos,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        tie_word_embeddings=False,
    )
    model = kinds.LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = config.eos_token_id
    prompt = torch.tensor([fast.encode(PAGE[0]).ids])
    whole = model.generate(prompt, max_new_tokens=NEW, do_sample=False, eos_token_id=-1)[0].tolist()
    likeliest, before = whole[-NEW // 2], torch.tensor([whole[: -NEW // 2]])
    with torch.no_grad():
        logit = model(before).logits[0, -1, likeliest]
    # WordPiece and Unigram have other ids in every process (findings/tokenizers_training_ids.sh): the logit may have
    # either sign, and the text may hold its end already, which another weight would take away again.
    if ends[-1] not in whole[-NEW:]:
        model.lm_head.weight.data[ends[-1]] = (1 + 0.01 * logit.sign()) * model.lm_head.weight[likeliest]
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def imported(request, tmp_path_factory):
    return ImportedFamily(request.param, tmp_path_factory.mktemp(request.param))


def test_texts_get_the_ids_that_transformers_gives_them(imported):
    for text in TEXTS:
        assert imported.tokenizer.encode_text(text) == imported.theirs(text)["input_ids"]


def test_markers_in_a_prompt_are_tokens_and_in_a_document_are_text(imported):
    tokenizer = imported.tokenizer
    markers = [token for token in imported.theirs.get_added_vocab() if not token.isspace()]
    text = "a".join(markers) + "a river" + " ".join(markers)
    assert tokenizer.encode_text(f"say {text}") == imported.theirs(f"say {text}")["input_ids"]
    forbidden = {tokenizer.eos, tokenizer.bos, *tokenizer.stops, *tokenizer.prefix} - {None}
    assert forbidden.isdisjoint(tokenizer.encode(text))
    assert forbidden.isdisjoint(tokenizer.encode_batch([text])[0].tolist())
    assert tokenizer.decode(tokenizer.encode("a river")).strip() == "a river"


def test_a_chat_gets_the_ids_that_transformers_gives_it(imported):
    if imported.family.chat is None:
        with pytest.raises(ConfigError, match="this tokenizer has no chat template; give prompts as text, or import"):
            imported.tokenizer.encode_chat(CHAT)
        return
    theirs = imported.theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    assert imported.tokenizer.encode_chat(CHAT) == theirs
    for messages in (CHAT, CHAT[:2]):
        text = imported.theirs.apply_chat_template(messages, tokenize=False, continue_final_message=True)
        assert imported.tokenizer.render_chat(messages, reply=False) == text


def test_likelihoods_and_greedy_texts_are_those_of_transformers(imported):
    ends = set()
    for text in TEXTS[:4]:
        prompt = imported.theirs(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            theirs, ours = imported.model(prompt).logits, imported.ours.net(prompt).logits
        torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1), rtol=1e-5, atol=1e-5)
        whole = imported.model.generate(prompt, max_new_tokens=NEW, do_sample=False)[0].tolist()
        (written,) = imported.ours.generate(text, max_new_tokens=NEW, temperature=0.0)
        new = whole[prompt.shape[1] :]
        ended = new[-1] in imported.ends
        ends.add(new[-1] if ended else None)
        assert written.tokens == (new[:-1] if ended else new)
        assert written.reason == ("eos" if ended else "length")
        before, after = (imported.theirs.decode(ids, skip_special_tokens=True) for ids in (prompt[0].tolist(), whole))
        assert written.text == after[len(before) :]
    assert ends - {None}


def test_files_and_ids_come_back_from_an_export(imported, tmp_path):
    export_network(imported.ours, tmp_path / "out")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"):
        old, new = imported.folder / name, tmp_path / "out" / name
        assert old.exists() == new.exists()
        assert not old.exists() or old.read_text() == new.read_text()
    keys = ("bos_token_id", "eos_token_id")
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (imported.folder, tmp_path / "out"))
    assert [new[key] for key in keys] == [old.get(key) for key in keys]
    theirs = transformers().AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (*TEXTS, "".join(imported.family.ends)):
        assert theirs(text)["input_ids"] == imported.theirs(text)["input_ids"]
    again = load(tmp_path / "out")
    assert again.tokenizer.state() == imported.tokenizer.state()
    assert again.tokenizer.stops == imported.tokenizer.stops == restore_tokenizer(again.tokenizer.state()).stops


def test_a_template_runs_in_a_sandbox_and_says_what_it_refuses(tmp_path):
    write_tokenizer("gemma", tmp_path)
    from aptlab.data.tokenizers import TokenizerFile

    def read(template):
        (tmp_path / "chat_template.jinja").write_text(template)
        return TokenizerFile(str(tmp_path / "tokenizer.json")).prepare(lambda: iter([]), key="", folder=tmp_path)

    with pytest.raises(DataError, match="the chat template refuses these messages: there is no system role"):
        read(FAMILIES["gemma"].chat).render_chat([{"role": "system", "content": "be kind"}])
    for attack in (
        "{{ messages.__class__.__mro__ }}",
        "{% set _ = messages.append(1) %}",
        "{{ ''.__class__ }}x{{ 1/0 }}",
    ):
        with pytest.raises(DataError, match="the chat template refuses"):
            read(attack).render_chat(CHAT)
    with pytest.raises(DataError, match=r"messages must be a list such as \[{\"role\": \"user\""):
        read("x").render_chat([])
    with pytest.raises(DataError, match="'hello' is no message; write"):
        read("x").render_chat(["hello"])
