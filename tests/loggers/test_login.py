"""What to do about W&B is decided quickly, quietly and without importing it."""

import subprocess
import sys
import time

import pytest

from aptlab.loggers.login import choose_wandb_mode, find_connection_problem, find_wandb_url, has_wandb_login

URL = "https://wandb.example:8443"


def test_the_default_address_is_wandbs_own():
    from wandb import Settings

    assert find_wandb_url(None) == Settings.model_fields["base_url"].default


def test_the_address_comes_from_config_then_environment_then_settings(nobody, monkeypatch):
    (nobody / "config").mkdir()
    (nobody / "config" / "settings").write_text("[default]\nbase_url = https://from.settings/\n")
    assert find_wandb_url(None) == "https://from.settings"
    monkeypatch.setenv("WANDB_BASE_URL", "https://from.environment")
    assert find_wandb_url(None) == "https://from.environment"
    assert find_wandb_url("https://from.config") == "https://from.config"


def test_a_login_is_found_in_environment_settings_and_netrc(nobody, monkeypatch):
    assert not has_wandb_login(URL)
    (nobody / ".netrc").write_text("machine wandb.example:8443\n  login user\n  password abc\n")
    assert has_wandb_login(URL)
    assert not has_wandb_login("https://other.example")
    (nobody / ".netrc").unlink()
    (nobody / "config").mkdir()
    (nobody / "config" / "settings").write_text("[default]\napi_key = abc\n")
    assert has_wandb_login(URL)
    (nobody / "config" / "settings").write_text("not a settings file")
    assert not has_wandb_login(URL)
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    assert has_wandb_login(URL)


def test_a_login_under_the_older_host_name_counts(nobody):
    from wandb.sdk.lib import urls

    older = urls.forge_upstream_url(urls.DEFAULT_BASE_URL).removeprefix("https://")
    (nobody / ".netrc").write_text(f"machine {older}\n  login user\n  password abc\n")
    assert has_wandb_login(find_wandb_url(None))


def test_a_broken_netrc_is_no_login(nobody):
    (nobody / ".netrc").write_text("machine\n\x00")
    assert not has_wandb_login(URL)


@pytest.mark.parametrize(
    ("mode", "asked", "expected", "why"),
    [
        ("none", "", "none", ""),
        ("auto", "", "none", "no login for wandb.example was found"),
        ("online", "", "offline", "no login for wandb.example was found"),
        ("offline", "", "offline", "asked for"),
        ("online", "offline", "offline", "asked for"),
        ("online", "disabled", "none", "WANDB_MODE=disabled"),
    ],
)
def test_without_a_login(monkeypatch, mode, asked, expected, why):
    monkeypatch.setenv("WANDB_MODE", asked)
    decision = choose_wandb_mode(mode, URL, 5.0)
    assert (decision.mode, decision.why) == (expected, why)


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_with_a_login_but_no_server(monkeypatch, closed, mode):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    decision = choose_wandb_mode(mode, closed, 5.0)
    assert decision.mode == "offline"
    assert "cannot be reached (" in decision.why
    assert "Connection refused" in decision.why


def test_a_silent_server_is_given_up_in_time(silent):
    begun = time.monotonic()
    assert find_connection_problem(silent, 0.5) == f"{silent.removeprefix('http://')} did not answer within 0.5 s"
    assert time.monotonic() - begun < 1.5


def test_a_name_lookup_that_hangs_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *unused, **unused_too: time.sleep(3))
    begun = time.monotonic()
    assert find_connection_problem(URL, 0.3) == "wandb.example:8443 did not answer within 0.3 s"
    assert time.monotonic() - begun < 1.5


def test_any_answer_is_an_answer(bad_server):
    assert find_connection_problem(bad_server, 5.0) is None
    assert find_connection_problem(bad_server + "/missing", 5.0) is None


def test_nothing_is_imported_to_decide():
    code = """
import sys
from aptlab.loggers.login import base_url, plan
print(plan("auto", base_url(None), 5.0).mode, "wandb" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "none False False\n"
