"""What reaches a terminal or a log is printable, whoever wrote the text."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pgneural import Document, Explanation, Hit, HitChunk, Hits, Stage
from pgneural.cli import main, output
from pgneural.errors import MissingExtra, PgneuralError
from pgneural.printable import PrintableFormatter, logger, printable, printable_json, warn

STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Written out here, and not derived from what is tested."""

HOSTILE = "a\x1b]0;owned\x07b\x9b31m\u202ec\u2066d\u200be\u2028f\x7f\r\b\ud800g\x00:warning:[red]h"

hostile = st.text(
    st.one_of(st.characters(), st.sampled_from(sorted(set(HOSTILE + "\u200d\u200c\u00a0\u3000\n\t")))), max_size=40
)


def printed(do: Callable[[], Any]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        do()
    return out.getvalue() + err.getvalue()


def hits_of(text: str) -> Hits:
    document = Document(external_id=text, title=text, uri=text, metadata_={text: text})
    hit = Hit(document, 1, 0.5, HitChunk(0, text, {text: text}), {text: 0.5, "semantic": 0.1})
    return Hits([hit], limit=2, strategy=text)


def explanation_of(text: str) -> Explanation:
    stage = Stage(text, text, 1, 0, 0.1, (text,))
    return Explanation(hits_of(text), text, (stage,), (text,), (text,), 0.1, 0.2, {})


FACES: dict[str, Callable[[str], Any]] = {
    "say": lambda text: output.say(text),
    "table": lambda text: output.print_table((text,), [(text,), (1,), (None,)], title=text),
    "hits": lambda text: output.print_hits(hits_of(text), title=text),
    "explanation": lambda text: output.print_explanation(explanation_of(text)),
    "json": lambda text: output.print_json(output.hits_as_json(hits_of(text))),
}


@given(hostile)
def test_every_face_prints_only_what_can_be_seen(text: str) -> None:
    for name, face in FACES.items():
        shown = printed(lambda face=face: face(text))  # type: ignore[misc]
        assert not STEERING.search(shown), name
        shown.encode()  # no half of a surrogate pair


@given(hostile)
def test_what_can_be_seen_stays_and_the_rest_is_told_apart(text: str) -> None:
    shown = printable(text)
    assert not STEERING.search(shown)
    assert "\n" not in shown
    assert printable(shown) == shown
    plain = "".join(character for character in text if character.isprintable())
    assert printable(plain) == plain
    assert printable("\x1b") == r"\x1b"
    assert printable("a\u202eb") == r"a\u202eb"
    assert printable("\U000e0041") == r"\U000e0041"


@given(st.recursive(hostile, lambda inner: st.lists(inner) | st.dictionaries(hostile, inner), max_leaves=5))
def test_json_keeps_every_value(value: Any) -> None:
    for ascii_only in (False, True):
        said = printable_json(value, indent=2, ascii_only=ascii_only)
        assert not STEERING.search(said)
        assert json.loads(said) == json.loads(json.dumps(value))


def test_scripts_that_need_joiners_keep_them() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "👨\u200d👩\u200d👧"):
        assert printable(text) == text
    for text in ("pass\u200dword", "a\u200c", "\u200dа"):
        assert "\\u200" in printable(text)
    assert printable("a\u00a0b\u3000c") == "a b c"
    assert unicodedata.category("\u3000") == "Zs"


@given(hostile)
def test_errors_warnings_and_logs(text: str) -> None:
    for error in (PgneuralError(f"it is {text}"), MissingExtra(text)):
        assert not STEERING.search(str(error))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(text)
    assert not STEERING.search(str(caught[0].message))
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(handler.format(record))  # type: ignore[method-assign]
    ours, others = logger("pgneural.test_printable"), logging.getLogger("others.test_printable")
    for each in (ours, others):
        each.propagate = False
        each.handlers = [handler]
    try:
        raise ValueError(text)
    except ValueError:
        ours.exception("%s of %s", text, text)
    handler.setFormatter(PrintableFormatter("%(name)s %(message)s"))
    others.warning("%s", text)
    assert len(heard) == 2
    for line in heard:
        assert not STEERING.search(line)


def test_all_our_loggers_are_made_so() -> None:
    import pgneural.active_space
    import pgneural.encoders.transformer
    import pgneural.worker

    for module in (pgneural.worker, pgneural.active_space, pgneural.encoders.precision):
        assert logger(module.logger.name) is module.logger
        assert any(type(each).__name__ == "_Printable" for each in module.logger.filters)


USAGE = (
    ["search", "d", HOSTILE.replace("\0", ""), "--mode", "x\x1b"],
    ["\x1b[1m"],
    ["--\x9b"],
    ["search", "d", "q", "--\u202e"],
)


@pytest.mark.parametrize("arguments", USAGE)
def test_usage_errors(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert not STEERING.search(result.output)
    assert "\\" in result.output


def test_an_argument_that_begins_with_a_dash_is_told_of_two_dashes() -> None:
    result = CliRunner().invoke(main, ["search", "d", "-chain"])
    assert result.exit_code == 2
    assert "goes after --" in result.output
    assert "goes after --" not in CliRunner().invoke(main, ["status", "-chain"]).output


@pytest.fixture
def failing() -> Iterator[list[str]]:
    @click.command("fails")
    def fails() -> None:
        warnings.warn(f"careful {HOSTILE}", stacklevel=1)
        raise RuntimeError(HOSTILE)

    main.add_command(fails)
    yield ["fails"]
    del main.commands["fails"]


@pytest.mark.filterwarnings("always")
def test_tracebacks_and_warnings(failing: list[str]) -> None:
    result = CliRunner().invoke(main, failing)
    assert result.exit_code == 1
    assert "RuntimeError" in result.output
    assert "Warning: careful" in result.output
    assert not STEERING.search(result.output)


def test_a_terminal_without_unicode() -> None:
    text = "Žluťoučký – 漢字 \x1b"

    def ascii_stream() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")

    for face in FACES.values():
        with redirect_stdout(ascii_stream()), redirect_stderr(ascii_stream()):
            face(text)
    with redirect_stdout(ascii_stream()) as out:
        output.print_json({"a": text})
        out.flush()
        assert json.loads(out.buffer.getvalue()) == {"a": text}  # type: ignore[attr-defined]


def test_the_command_line_escapes_what_the_encoding_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("speaks")
    def speaks() -> None:
        output.print_table(("ž",), [("漢字",)], title="ť")
        output.say("ž")
        assert sys.stdout.errors == "backslashreplace"

    monkeypatch.setitem(main.commands, "speaks", speaks)
    result = CliRunner(charset="ascii").invoke(main, ["speaks"])
    assert result.exit_code == 0, result.output
    assert r"\u6f22\u5b57" in result.output
