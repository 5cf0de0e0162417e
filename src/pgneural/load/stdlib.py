"""The docstrings of the running interpreter's standard library, as records.

Every public module, class, function and method that has a docstring, once, under its shortest public name.
Modules are imported, not parsed, because many are written in C.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pgneural.types import Record

SKIPPED = {"antigravity", "this", "idlelib", "lib2to3", "posix", "nt", "test", "turtledemo", "tkinter.test"}
"""Modules that act when they are imported, that are tests, or that another module is the public face of."""


def read() -> Iterator[Record]:
    """Yield the records; their metadata are module, kind, signature and python (the version)."""
    seen: set[int] = set()
    named: set[str] = set()  # a submodule may have the name of a function, for example
    for name in sorted(_module_names(), key=lambda name: (name.count("."), name)):
        if module := _import(name):
            for record in _of_module(module, seen):
                if record.external_id not in named:
                    named.add(record.external_id)
                    yield record


def _module_names() -> Iterator[str]:
    for name in sys.stdlib_module_names:
        if not name.startswith("_") and name not in SKIPPED:
            yield name
            yield from _submodules(name)


def _submodules(package: str) -> Iterator[str]:
    module = _import(package)
    for info in pkgutil.iter_modules(getattr(module, "__path__", []), f"{package}."):
        last = info.name.rpartition(".")[2]
        if not last.startswith("_") and last not in {"test", "tests"} and info.name not in SKIPPED:
            yield info.name
            if info.ispkg:
                yield from _submodules(info.name)


def _import(name: str) -> ModuleType | None:
    """Import a module quietly; None where it cannot be imported on this machine."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit):
            return None


def _of_module(module: ModuleType, seen: set[int]) -> Iterator[Record]:
    if record := _record(module, module.__name__, module.__name__, "module"):
        yield record
    for name, item in _public(module):
        kind = "class" if inspect.isclass(item) else "function" if inspect.isroutine(item) else None
        if kind is None or id(item) in seen:
            continue
        seen.add(id(item))
        if record := _record(item, f"{module.__name__}.{name}", module.__name__, kind):
            yield record
        if inspect.isclass(item):
            yield from _of_class(item, f"{module.__name__}.{name}", module.__name__)


def _of_class(item: type, qualified: str, module: str) -> Iterator[Record]:
    for name, member in sorted(vars(item).items()):
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or not inspect.isroutine(function):
            continue
        if record := _record(function, f"{qualified}.{name}", module, "method"):
            yield record


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None)
    for name in sorted(names if names is not None else vars(module)):
        item = getattr(module, name, None)
        if names is not None or (not name.startswith("_") and getattr(item, "__module__", None) == module.__name__):
            yield name, item


def _record(item: Any, qualified: str, module: str, kind: str) -> Record | None:
    text = getattr(item, "__doc__", None)
    if not isinstance(text, str) or not text.strip():
        return None
    signature = _signature(item) if kind != "module" else None
    metadata = {"module": module, "kind": kind, "signature": signature, "python": platform.python_version()}
    return Record(qualified, inspect.cleandoc(text), qualified, metadata, f"python:{qualified}", origin=qualified)


def _signature(item: Any) -> str | None:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(item)))  # an address differs every time
    except (TypeError, ValueError):
        return None
