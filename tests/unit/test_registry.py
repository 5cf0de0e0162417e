"""One model in memory, whoever asks for it."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgneural import Database, Searchable, encoders
from pgneural.encoders.loading import load
from pgneural.encoders.permitted import permit
from pgneural.encoders.registry import MODELS, Registry, key_of
from pgneural.rerank import cross_encoder
from pgneural.types import Kind
from pgneural.worker import Worker


def test_collections_classes_workers_and_spaces_share_one_model(
    url: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    make = encoders.make

    def noted(name: str, **options: Any) -> Any:
        loaded.append(name)
        return make(name, **options)

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        search = Searchable("body", encoder=tiny_model, precision="float32")

    monkeypatch.setattr(encoders, "make", noted)
    permit(tiny_model)
    with Database(url) as db:
        Base.metadata.create_all(db.engine)
        with db.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO notes VALUES (1, 'the quick fox')")
        for name in ("a", "b"):
            db.collection(name, encoder=tiny_model, precision="float32").index([{"id": "1", "text": "a fox"}])
        worker = Worker(url, as_superuser=True)
        worker.run(once=True)
        assert worker.problems == []
        used = [db.existing("a", precision="float32").encoder, db.existing("b", precision="float32").encoder]
        used += [Note.search.encoder, encoders.get(tiny_model, precision="float32")]
    assert len({id(encoder) for encoder in used}) == 1
    assert len(loaded) <= 2, "the worker's has no option of this host"


def test_other_options_and_other_files_are_other_models(tiny_model: Path, tmp_path: Path) -> None:
    assert encoders.get("hash") is encoders.get("hash")
    assert encoders.get("hash", dimensions=8) is not encoders.get("hash")
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = encoders.get(folder)
    assert encoders.get(folder) is before
    (folder / "note.txt").write_text("another file")
    after = encoders.get(folder)
    assert after is not before
    assert after.revision != before.revision


def test_other_kinds_are_shared_too(tiny_sparse: Path, tiny_late: Path, tiny_cross_encoder: Path) -> None:
    for kind, folder in ((Kind.SPARSE, tiny_sparse), (Kind.TOKENS, tiny_late)):
        encoder = encoders.get_extra(kind, folder)
        assert encoder is encoders.get_extra(kind, folder)
        assert (encoder.kind, encoder.distance) == (kind, "inner_product")
    assert cross_encoder(str(tiny_cross_encoder)) is cross_encoder(str(tiny_cross_encoder))


def test_options_that_are_no_plain_values_share_nothing() -> None:
    assert key_of(Kind.DENSE, "hash", {"tokenizer": object()}) is None


def test_threads_load_once_and_wait_for_no_other_model() -> None:
    registry, loads, gate = Registry(), [], threading.Event()

    def slow() -> str:
        loads.append(1)
        gate.wait(10)
        return "slow"

    threads = [threading.Thread(target=registry.get, args=("slow", slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert registry.get("quick", lambda: "quick") == "quick"
    assert not registry.ready("slow", lambda: registry.get("slow", slow))
    gate.set()
    for thread in threads:
        thread.join()
    assert registry.ready("slow", lambda: registry.get("slow", slow))
    assert loads == [1]


def test_an_error_is_for_who_asks_and_is_tried_again() -> None:
    registry, answers = Registry(), iter([OSError("gone"), "there"])

    def load() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    with pytest.raises(OSError, match="gone"):
        registry.get("model", load)
    deadline = time.monotonic() + 5
    while not registry.ready("model", lambda: registry.get("model", load)):
        assert time.monotonic() < deadline
    assert registry.get("model", load) == "there"
    assert MODELS is not registry


def test_models_are_loaded_one_at_a_time() -> None:
    """Transformers replaces functions of its own meanwhile, and two threads would leave them replaced."""
    inside, most = [0], [0]

    def slow(*_: object, **__: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        return object()

    threads = [threading.Thread(target=load, args=(slow, "a", None, False)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
