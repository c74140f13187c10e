"""The one door from a configuration to objects."""

from __future__ import annotations

from typing import Any

from aptlab.config.composing import resolve_to_plain
from aptlab.config.trust import import_target, list_trusted_prefixes, walk_target_nodes
from aptlab.errors import AptlabError, ConfigError


def build(node: Any, **kwargs: Any) -> Any:
    """Make the object that `node` (a DictConfig or a plain dict with a `_target_`) describes.

    `kwargs` are passed to it as they are, uncopied. Every target in the node, at any depth, is checked
    against the trust list before the first one is made. A node with `_partial_: true` gives a factory.

    Errors: AptlabError of a component, with the config path in front; ConfigError naming the path for
    every other error of a constructor, with the original as its cause.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    plain, path = _plain(node)
    prefixes = list_trusted_prefixes()
    for where, inner in walk_target_nodes(plain, path):
        try:
            import_target(inner["_target_"], prefixes)
        except AptlabError as error:
            raise ConfigError(f"{where or 'node'}: {error}") from None
        except ImportError as error:
            raise ConfigError(f"{where or 'node'}: _target_ {inner['_target_']} cannot be imported: {error}") from error
    try:
        # As a partial first: dataclass arguments stay objects (findings/hydra_instantiate_dataclass.sh).
        partial = instantiate({**plain, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise _explained(cause, _join(path, _failed_key(error))) from (cause.__cause__ or cause)
    if plain.get("_partial_"):
        return _with(partial, kwargs)
    try:
        return partial(**kwargs)
    except Exception as error:
        explained = _explained(error, path or plain["_target_"])
        if explained is error:
            raise
        raise explained from error


def _plain(node: Any) -> tuple[dict[str, Any], str]:
    """The node as plain containers, and its path in the config it came from."""
    from omegaconf import DictConfig

    if isinstance(node, DictConfig):
        plain, path = resolve_to_plain(node), str(node._get_full_key("") or "")
    else:
        plain, path = node, ""
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise ConfigError(f"{path or 'node'}: there is no _target_, so nothing can be built from {_short(node)}")
    if _interpolated(plain):
        raise ConfigError(f"{path or 'node'}: an interpolation ${{...}} is left; resolve the configuration first")
    return plain, path


def _interpolated(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_interpolated(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_interpolated(item) for item in value)
    return isinstance(value, str) and "${" in value


def _with(partial: Any, kwargs: dict[str, Any]) -> Any:
    import functools

    return functools.partial(partial, **kwargs) if kwargs else partial


def _failed_key(error: Exception) -> str:
    """Hydra writes `full_key: a.b` as the last line of its message."""
    _, found, key = str(error).rpartition("full_key: ")
    return key.strip() if found else ""


def _join(path: str, key: str) -> str:
    return ".".join(part for part in (path, key) if part) or "node"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _explained(error: BaseException, path: str) -> AptlabError:
    """The error with the path in front, once."""
    if isinstance(error, AptlabError):
        return error if str(error).startswith(path) else type(error)(f"{path}: {error}")
    text = str(error).strip().split("\n")[0]
    return ConfigError(f"{path}: {type(error).__name__}: {text}")
