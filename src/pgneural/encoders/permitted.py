"""Which models this host loads where a database names them.

Whoever may write to a database may write any name there, and loading a model may run its code. So what a row of the
catalog names is loaded only if the host says so: encoders that are installed here (entry points), what the program
itself has named (`permit`, ``db.collection(encoder=…)``, ``Searchable(encoder=…)``), and what ``--model`` or
``PGNEURAL_MODEL`` list.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgneural import encoders
from pgneural.encoders.registry import MODELS, key_of
from pgneural.errors import UnpermittedModel
from pgneural.types import Encoder, Kind

HARMLESS = frozenset({*encoders.IDENTITY, "device", "precision"})
"""The options that a database may give: what vectors are made, where and how exactly. None of them runs anything."""

_models: dict[str, bool] = {}


def permit(*models: str | Path, trust_remote_code: bool = False) -> None:
    """Let this process load models that a database names.

    Args:
        *models: Names on the model hub, or folders; a folder permits those below it, too.
        trust_remote_code: Whether code that comes with them may be run. Only for models that you have read.

    Example:
        >>> permit("/srv/models")
    """
    for model in models:
        name = encoders.canonical(model)
        _models[name] = trust_remote_code or _models.get(name, False)


def permitted(name: str, /, **options: Any) -> Encoder:
    """Return the encoder that a database names, if this host permits that.

    Raises:
        UnpermittedModel: It does not, or not with these options.
        UnknownEncoder, EncoderUnavailable, MissingExtra: See `pgneural.encoders.get`.
    """
    return encoders.get(name, **permitted_options(name, options))


def ready(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the encoder that a database names is loaded; if not, a thread loads it from now on.

    True also where it cannot be loaded here: who asks for it then gets the error.
    """
    try:
        key = key_of(Kind.DENSE, encoders.canonical(name), permitted_options(name, options))
    except UnpermittedModel:
        return True
    return MODELS.ready(key, lambda: permitted(name, **options))


def permitted_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a model that a database names may be made.

    Raises:
        UnpermittedModel: The host does not permit the model, or an option is none that a database may give.
    """
    known = _permission(name)
    if known is None:
        raise UnpermittedModel(
            f"the database names model {name!r}, which this host does not permit; permit it with --model {name} "
            f"(PGNEURAL_MODEL), or with pgneural.encoders.permitted.permit({name!r})"
        )
    allowed = dict(options)
    if allowed.pop("trust_remote_code", False) and not known:
        raise UnpermittedModel(
            f"the database asks to run code that comes with model {name!r}, which only this host may permit; "
            f"read that code, then permit it with --trusted-model {name}"
        )
    if beyond := sorted(allowed.keys() - HARMLESS):
        raise UnpermittedModel(
            f"the database gives model {name!r} the option {beyond[0]!r}, "
            f"expected one of {', '.join(sorted(HARMLESS))}; make the encoder in your own program"
        )
    return {**allowed, "trust_remote_code": True} if known else allowed


def _permission(name: str) -> bool | None:
    """Return whether code of a model may be run; None where the model itself is not permitted."""
    folders = [encoders.canonical(name), *map(str, Path(name).parents)] if Path(name).is_absolute() else [name]
    found = [_models[folder] for folder in folders if folder in _models]
    if found:
        return any(found)
    return False if encoders.registered(name) or name.startswith("vectors:") else None
