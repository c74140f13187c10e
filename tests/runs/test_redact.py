"""Secrets are hidden by name, by shape and by value, and nothing else is."""

import pytest

from aptlab import redact as module
from aptlab.redact import is_secret_name, redact_overrides, redact_text, redact_value, remember_secret


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(module, "_seen", set())


@pytest.mark.parametrize(
    "name",
    ["api_key", "logger.api_key", "apikey", "wandbApiKey", "HF_TOKEN", "token", "access-token", "password",
     "db_passwd", "client_secret", "credentials", "Authorization", "ssh_key", "++server.password"],
)  # fmt: skip
def test_secret_names_are_recognised(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["tokens", "tokenizer", "train_tokens", "eos_token", "flops_per_token", "key", "monkey", "sort_key",
     "kv_heads", "text_key", "tokens_per_second", ""],
)  # fmt: skip
def test_ordinary_names_are_not(name):
    assert not is_secret_name(name)


def test_values_under_secret_names_are_hidden_at_any_depth():
    config = {"a": [{"api_key": "k-123456789", "n": 1}], "server": {"password": 12345}, "token": None}
    assert redact_value(config) == {"a": [{"api_key": "***", "n": 1}], "server": {"password": "***"}, "token": None}


def test_a_secret_seen_once_is_hidden_wherever_it_turns_up_later():
    redact_value({"logger": {"api_key": "swordfish-99"}})
    assert redact_value({"note": "uses swordfish-99"}) == {"note": "uses ***"}
    assert redact_text("failed with swordfish-99!") == "failed with ***!"


def test_values_of_secret_environment_variables_are_hidden(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "f00df00df00df00d")
    monkeypatch.setenv("SOME_PATH", "ordinary-value")
    assert redact_text("f00df00df00df00d ordinary-value") == "*** ordinary-value"


@pytest.mark.parametrize(
    "secret",
    ["sk-" + "a1" * 12, "hf_" + "Ab1" * 10, "ghp_" + "x9" * 12, "AKIA" + "ABCD1234" * 2, "xoxb-1234567890-ab",
     "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "local-" + "0a" * 20],
)  # fmt: skip
def test_keys_of_known_shapes_are_hidden(secret):
    shown = redact_text(f"before {secret} after")
    assert secret not in shown
    assert shown.startswith("before ***")
    assert shown.endswith(" after")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host/x", "https://***@host/x"),
        ("run --api-key abc123 --steps 5", "run --api-key *** --steps 5"),
        ("password=hunter2, steps=5", "password=***, steps=5"),
        ('{"api_key": "zzz", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("x:\n  password: hunter\n  n: 1", "x:\n  password: ***\n  n: 1"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer ***"),
    ],
)
def test_pairs_in_running_text_are_hidden(text, shown):
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    ["logger.api_key: unknown key; did you mean project?", "loss per token=2.3", "tokens: 500", "seed=1",
     "commit 0d8bcfb22fb9449060f917e7d7a2f6a46cd128e0", "rope.factor=8", "token=null"],
)  # fmt: skip
def test_ordinary_text_is_left_alone(text):
    assert redact_text(text) == text


def test_overrides_keep_their_names():
    given = ["seed=1", "logger.api_key=abcdefghij", "x={password:hunter22,n:1}", "data.note=abcdefghij"]
    assert redact_overrides(given) == ["seed=1", "logger.api_key=***", "x={password:***,n:1}", "data.note=***"]


def test_short_values_are_not_remembered():
    remember_secret("true")
    assert redact_text("true") == "true"
