"""How a W&B run begins is decided quickly, quietly and in W&B's own reading of its settings."""

import os
import pty
import subprocess
import sys
import time

import pytest
import wandb

from aptlab.loggers.wandb_start import WandbPlan, choose_wandb_plan, find_connection_problem, run_within

URL = "https://wandb.example:8443"
KEY = "a" * 40
TERMINAL_SCRIPT = """
import sys
from aptlab.loggers.wandb_start import choose_wandb_plan, make_wandb_settings, start_wandb_run
folder, url = sys.argv[1:]
plan = choose_wandb_plan("online", url, 5.0)
settings = make_wandb_settings(folder, url, stats=False)
run, began = start_wandb_run(plan, {"id": "abc", "dir": folder}, settings, 9.0)
run.finish()
print(plan.mode, began.mode)
"""


@pytest.fixture
def answering(monkeypatch):
    """A server that answers everything: only the addresses that are asked for matter."""
    addresses = []
    monkeypatch.setattr("aptlab.loggers.wandb_start.find_connection_problem", lambda url, _: addresses.append(url))
    return addresses


def test_the_default_address_is_wandbs_own(answering, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_wandb_plan("online", None, 5.0).mode == "online"
    assert answering == [wandb.Settings().base_url]


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (None, None, "https://from.settings"),
        (None, "https://from.environment", "https://from.environment"),
        ("https://from.config/", "https://from.environment", "https://from.config"),
    ],
)
def test_the_address_comes_from_config_then_environment_then_settings(
    nobody, answering, monkeypatch, configured, environment, expected
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (nobody / "config").mkdir()
    (nobody / "config" / "settings").write_text("[default]\nbase_url = https://from.settings/\n")
    if environment:
        monkeypatch.setenv("WANDB_BASE_URL", environment)
    assert choose_wandb_plan("online", configured, 5.0).mode == "online"
    assert answering == [expected]


@pytest.mark.parametrize("source", ["environment", "settings", "netrc", "older host name"])
def test_a_login_is_found_in_environment_settings_and_netrc(nobody, answering, monkeypatch, source):
    url = URL
    if source == "environment":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    elif source == "settings":
        (nobody / "config").mkdir()
        (nobody / "config" / "settings").write_text(f"[default]\napi_key = {KEY}\n")
    elif source == "netrc":
        (nobody / ".netrc").write_text(f"machine wandb.example:8443\n  login user\n  password {KEY}\n")
    else:
        url = None
        (nobody / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert choose_wandb_plan("auto", url, 5.0) == WandbPlan("online", logged_in=True)
    assert choose_wandb_plan("offline", url, 5.0) == WandbPlan("offline", "as configured", logged_in=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".netrc", f"machine other.example\n  login user\n  password {KEY}\n"),
        (".netrc", "machine\n\x00"),
        ("config/settings", "not a settings file"),
    ],
)
def test_another_servers_login_and_a_broken_file_are_no_login(nobody, name, text):
    (nobody / "config").mkdir()
    (nobody / name).write_text(text)
    assert choose_wandb_plan("auto", URL, 5.0).mode == "none"


def test_a_key_of_the_wrong_form_means_an_offline_run_that_says_so(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "no key")
    plan = choose_wandb_plan("online", URL, 5.0)
    assert plan.mode == "offline"
    assert "WANDB_API_KEY invalid: " in plan.reason


@pytest.mark.parametrize(
    ("mode", "environment", "expected", "reason"),
    [
        ("auto", "", "none", "no login for wandb.example was found"),
        ("online", "", "offline", "no login for wandb.example was found"),
        ("offline", "", "offline", "as configured"),
        ("online", "offline", "offline", "as configured"),
        ("auto", "offline", "offline", "as configured"),
        ("online", "disabled", "none", "W&B is disabled by WANDB_MODE or its settings"),
    ],
)
def test_without_a_login(monkeypatch, mode, environment, expected, reason):
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert choose_wandb_plan(mode, URL, 5.0) == WandbPlan(expected, reason)


def test_the_settings_of_wandb_offline_are_respected(nobody, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (nobody / "wandb").mkdir()
    (nobody / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert choose_wandb_plan("online", URL, 5.0) == WandbPlan("offline", "as configured", logged_in=True)


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_with_a_login_but_no_server(monkeypatch, closed, mode):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    plan = choose_wandb_plan(mode, closed, 5.0)
    assert plan.mode == "offline"
    assert "cannot be reached (" in plan.reason
    assert "Connection refused" in plan.reason


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
    assert find_connection_problem(bad_server + "/moved", 5.0) is None


def test_an_exit_inside_wandb_is_an_error_of_wandb():
    with pytest.raises(RuntimeError, match=r"^7$"):
        run_within(5.0, lambda: sys.exit(7))


def test_a_package_that_is_missing_is_said_without_a_prompt(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert choose_wandb_plan("online", URL, 5.0) == WandbPlan("none", "the package wandb is not installed")


def test_the_choice_imports_no_torch():
    code = """
import sys
from aptlab.loggers import Tracking
from aptlab.loggers.wandb_start import choose_wandb_plan
print("wandb" in sys.modules, choose_wandb_plan("auto", None, 5.0).mode, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "False none False\n"


@pytest.mark.slow
@pytest.mark.parametrize(("key", "modes"), [(None, "offline offline"), (KEY, "online offline")])
def test_nothing_is_asked_at_a_terminal(tmp_path, monkeypatch, refusing_server, key, modes):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    outside, terminal = pty.openpty()
    command = [sys.executable, "-c", TERMINAL_SCRIPT, str(tmp_path), refusing_server]
    subprocess.run(command, stdin=terminal, stdout=terminal, stderr=terminal, timeout=60, check=True)
    os.close(terminal)
    shown = os.read(outside, 65536).decode()
    os.close(outside)
    assert shown == modes + "\r\n"


def test_a_slow_service_shortens_the_question_to_the_server(monkeypatch):
    """Of nine seconds three are left for an offline start, however long W&B took to come up."""
    limits = []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("aptlab.loggers.wandb_start.find_connection_problem", lambda _, limit: limits.append(limit))
    monkeypatch.setattr("aptlab.loggers.wandb_start.BUDGET", 4.0)
    choose_wandb_plan("online", URL, 5.0)
    assert 0.5 <= limits[0] < 1.0
