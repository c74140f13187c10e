"""Whether W&B can be used, found out without importing it, without a prompt, and within seconds."""

from __future__ import annotations

import ast
import configparser
import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class WandbDecision:
    """What to do: `mode` is online, offline or none; `why` says so in words a user understands."""

    mode: str
    why: str = ""
    logged_in: bool = False


def choose_wandb_mode(mode: str, url: str | None, timeout: float) -> WandbDecision:
    """Choose between online, offline and none. Takes at most `timeout` seconds, usually far less.

    `mode` auto means W&B only for who is logged in; online means asked for; `WANDB_MODE` and
    `wandb offline` are respected.
    """
    if find_spec("wandb") is None:
        return WandbDecision("none", "the package wandb is not installed")
    asked = os.environ.get("WANDB_MODE") or read_wandb_settings().get("mode", "")
    if mode == "none" or asked == "disabled":
        return WandbDecision("none", f"WANDB_MODE={asked}" if asked else "")
    known = has_wandb_login(url)
    if mode == "offline" or asked in ("offline", "dryrun"):
        return WandbDecision("offline", "asked for", logged_in=known)
    host = urlsplit(url or "").hostname or "its server"
    if not known:
        return WandbDecision("none" if mode == "auto" else "offline", f"no login for {host} was found")
    problem = find_connection_problem(url, timeout) if url else None
    return WandbDecision("offline" if problem else "online", problem or "", logged_in=True)


def find_wandb_url(configured: str | None) -> str | None:
    """The address of the W&B server: configured, else WANDB_BASE_URL, W&B's settings, W&B's default."""
    url = configured or os.environ.get("WANDB_BASE_URL") or read_wandb_settings().get("base_url") or _shipped("url")
    return url.rstrip("/") if isinstance(url, str) else None


def read_wandb_settings() -> dict[str, str]:
    """What W&B's own settings files say: the user's, then those of the current folder."""
    home = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    found: dict[str, str] = {}
    for path in (Path(home).expanduser() / "settings", Path("wandb/settings")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
            found.update(parser["default"] if parser.has_section("default") else {})
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
    return found


def has_wandb_login(url: str | None) -> bool:
    """Whether credentials for the server exist: environment, settings or netrc. Reads no secret out."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if read_wandb_settings().get("api_key"):
        return True
    try:
        entries = netrc.netrc(_netrc_file())
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return any(name in entries.hosts for name in _names(url))


def find_connection_problem(url: str, timeout: float) -> str | None:
    """Why the server does not answer within `timeout` seconds, or None if it does.

    Any HTTP status is an answer. Proxies of the environment are used; no credentials are sent.
    """
    host = urlsplit(url).netloc
    problem: list[str] = [f"{host} did not answer within {timeout:g} s"]

    def ask() -> None:
        problem[0] = _ask(url, timeout) or ""

    thread = threading.Thread(target=ask, name="wandb-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    return problem[0] or None


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer; it is not followed."""

    def redirect_request(self, *unused: Any, **unused_too: Any) -> None:
        return None


def _ask(url: str, timeout: float) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname = False  # only asks whether somebody answers; W&B itself verifies
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(_Stay(), urllib.request.HTTPSHandler(context=context))
    host = urlsplit(url).netloc
    try:
        opener.open(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError as error:
        error.close()
    except TimeoutError:
        return f"{host} did not answer within {timeout:g} s"
    except (OSError, ValueError) as error:
        return f"{host} cannot be reached ({getattr(error, 'reason', None) or error})"
    except Exception as error:  # a server that talks no HTTP
        return f"{host} does not answer like a web server ({type(error).__name__})"
    return None


def _netrc_file() -> str:
    if os.environ.get("NETRC"):
        return os.path.expanduser(os.environ["NETRC"])
    usual, windows = (os.path.expanduser(name) for name in ("~/.netrc", "~/_netrc"))
    return windows if not os.path.exists(usual) and os.path.exists(windows) else usual


def _names(url: str | None) -> set[str]:
    """Host names under which a login for this server may be stored."""
    parts = urlsplit(url or "")
    names = {parts.netloc, parts.hostname or ""}
    aliases = _shipped("aliases") or {}
    for front, behind in aliases.items() if isinstance(aliases, dict) else ():
        if parts.hostname in (front, f"api.{front}", behind):
            names |= {behind, f"api.{front}"}
    return names - {""}


def _shipped(what: str) -> Any:
    """A constant of the installed wandb, read from its source: the default url or host aliases."""
    wanted = {"url": ("DEFAULT_BASE_URL", "base_url"), "aliases": ("FORGE_HOSTS",)}[what]
    spec = find_spec("wandb")
    for folder in spec.submodule_search_locations or () if spec else ():
        for name in ("sdk/lib/urls.py", "sdk/wandb_settings.py"):
            try:
                tree = ast.parse(Path(folder, name).read_text(encoding="utf-8"))
            except (OSError, SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                value = _constant(node, wanted)
                if value is not None:
                    return value
    return None


def _constant(node: ast.AST, names: tuple[str, ...]) -> Any:
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return None
    if node.value is None or not any(isinstance(item, ast.Name) and item.id in names for item in targets):
        return None
    try:
        return ast.literal_eval(node.value)
    except ValueError:
        return None
