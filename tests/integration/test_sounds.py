"""Recordings in collections: by what is spoken in them, with the second, and by how they sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgneural import Collection, Database, Record, Searchable, encoders, transcribers
from pgneural.cli import main
from pgneural.cli.place import place_of, written
from pgneural.encoders.registry import MODELS, key_of
from pgneural.errors import InvalidQuery, UnknownEncoder, UnpermittedModel
from pgneural.load import permitted_files
from pgneural.store import queue
from pgneural.transcribers import Transcript
from pgneural.types import Modality, Samples
from pgneural.worker import Worker
from tests.fixtures.orm import Create
from tests.fixtures.sounds import PitchTranscriber, folder_of, silence, tone, wav
from tests.fixtures.tables import Execute


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(permitted_files, "_folders", set())
    monkeypatch.setattr(queue, "ATTEMPTS", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> PitchTranscriber:
    """The transcriber that is taken where none is named."""
    ears = PitchTranscriber()
    monkeypatch.setattr(transcribers, "_registered", lambda: {"pitch": None})
    monkeypatch.setattr(transcribers, "DEFAULT", "pitch")
    monkeypatch.setitem(MODELS._loaded, key_of("transcriber", "pitch", {}), ears)
    return ears


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "talks", a=["low", "middle"], b=["high", "high", "low"], c=["middle"])


@pytest.fixture
def talks(db: Database, folder: Path, ears: PitchTranscriber) -> Collection:
    talks = db.collection("talks", encoder="hash", max_tokens=6)
    report = talks.index([folder])
    assert (report.inserted, report.rejected) == (3, 0)
    return talks


@pytest.fixture
def sounds(db: Database, folder: Path) -> Collection:
    sounds = db.collection("sounds", encoder="openwakeword")
    assert sounds.index([folder]).inserted == 3
    return sounds


def work(db: Database) -> None:
    Worker(db.url, as_superuser=True, make=encoders.make).run(once=True)


def test_what_is_spoken_is_found_with_its_second(talks: Collection, folder: Path, ears: PitchTranscriber) -> None:
    document = talks.document(str(folder / "b.wav"))
    assert (document.content, document.modality) == ("a high note.\na high note.\na low note.", "audio")
    about = {"language": "en", "transcriber": "pitch", "duration": 3.0, "seconds": [[0, 1], [1, 2], [2, 3]]}
    assert document.metadata_.items() >= about.items()
    for mode in ("lexical", "semantic", "hybrid"):
        hits = talks.search("low", where="title = 'b.wav'", mode=mode)
        assert (hits[0].chunk.text.strip(), hits[0].chunk.locator["seconds"]) == ("a low note.", [2, 3])
        assert written(place_of(hits[0])).endswith("b.wav, 0:02")
    assert {hit.entity.title for hit in talks.search("low", mode="lexical")} == {"a.wav", "b.wav"}
    assert (talks.index([folder]).unchanged, ears.heard) == (3, 3)
    (folder / "c.wav").write_bytes(wav(tone("high")))
    report = talks.index([folder])
    assert (report.updated, report.unchanged, ears.heard) == (1, 2, 4)
    assert {hit.entity.title for hit in talks.search("high", mode="lexical")} == {"b.wav", "c.wav"}


def test_a_spoken_question_asks_what_is_said(talks: Collection, folder: Path) -> None:
    asked = wav(tone("high"))
    spoken: list[Any] = [asked, {"array": tone("high"), "sampling_rate": 16_000}]
    for each in spoken:
        assert talks.search(each, limit=1)[0].entity.title == "b.wav"
        assert talks.search(each, mode="lexical")[0].entity.title == "b.wav"
    weighted: dict[Any, Any] = {"a middle note": 1.0, folder / "c.wav": 0.5}
    assert talks.search(weighted, limit=1)[0].entity.title in ("a.wav", "c.wav")
    assert talks.explain(asked, limit=1).hits[0].entity.title == "b.wav"
    assert talks.search("low", inputs={"semantic": asked}, limit=3)
    with pytest.raises(InvalidQuery, match="no speech was heard in the sound"):
        talks.search(wav(silence(1)))


def test_a_recording_without_speech_is_named(talks: Collection, folder: Path) -> None:
    (folder / "d.wav").write_bytes(wav(silence(2)))
    report = talks.index([folder])
    assert (report.unchanged, report.rejected) == (3, 1)
    assert "no speech was heard in it; index it into a collection whose encoder accepts" in report.bad[0].reason
    with pytest.raises(UnknownEncoder, match="no transcriber 'nobody'"):
        transcribers._made("nobody")


def test_transcripts_follow_into_another_space(db: Database, talks: Collection, execute: Execute) -> None:
    db.create_space("talks", "minilm", encoder="minilm")
    work(db)
    assert execute("SELECT count(*) FROM neural.failed") == [(0,)]
    assert db.check().differences == ()
    db.switch_space("talks", "minilm")
    hits = db.existing("talks").search("a middle note", where="title = 'a.wav'")
    assert hits[0].chunk.locator["seconds"] == [1, 2]
    execute("UPDATE neural.documents SET content = 'a quiet note.' WHERE title = 'c.wav'")
    work(db)
    assert db.existing("talks").search("quiet", mode="lexical")[0].chunk.locator["seconds"] == [0, 1]
    assert db.check().differences == ()


def test_transcripts_that_are_read_back_are_not_heard_again(
    db: Database, talks: Collection, url: str, tmp_path: Path, ears: PitchTranscriber
) -> None:
    assert talks.index(list(talks.documents())).unchanged == 3
    exported = CliRunner().invoke(main, ["export", "talks", "--database", url])
    path = tmp_path / "export.jsonl"
    path.write_text(exported.stdout)
    copied = db.collection("copy", encoder="hash", max_tokens=6)
    assert (copied.index([path]).inserted, ears.heard) == (3, 3)
    hits = copied.search("low", where="title = 'b.wav'")
    assert hits[0].chunk.locator["seconds"] == [2, 3]
    assert copied.document(hits[0].entity.external_id).modality == "audio"


def test_seconds_of_your_own(db: Database) -> None:
    notes = db.collection("notes", encoder="hash", max_tokens=6)
    lines = {"id": "s", "text": "We meet at noon.\nWe eat at one.", "seconds": [(3, 4.5), (4.5, 9)]}
    broken = {"id": "t", "text": "we sleep at ten", "seconds": "never"}
    assert notes.index([lines, broken]).inserted == 2
    assert notes.search("eat", limit=1)[0].chunk.locator["seconds"] == [4.5, 9]
    assert "seconds" not in notes.search("sleep", limit=1)[0].chunk.locator
    assert notes.index([lines, broken]).unchanged == 2
    report = notes.index([{**lines, "seconds": [[3, 4.5], [7.5, 9]]}])
    assert (report.updated, report.chunks_encoded) == (1, 0)
    assert notes.search("eat", limit=1)[0].chunk.locator["seconds"] == [7.5, 9]


def test_sounds_are_found_by_how_they_sound(sounds: Collection, folder: Path) -> None:
    for asked in (folder / "c.wav", (folder / "c.wav").read_bytes()):
        hits = sounds.search(asked, limit=3)
        assert hits[0].entity.title == "c.wav"
        assert hits[0].score == pytest.approx(1, abs=1e-3)
        assert (hits[0].chunk.text, hits[0].chunk.locator) == ("", {"seconds": [0, 1]})
    assert sounds.index([folder]).unchanged == 3
    assert [hit.entity.title for hit in sounds.search(tone_of("low"), where="title = 'b.wav'")] == ["b.wav"]
    with pytest.warns(UserWarning, match="does not accept text; ask by audio"):
        assert sounds.search("a.wav")[0].entity.title == "a.wav"


def tone_of(pitch: str) -> Any:
    return {"array": tone(pitch), "sampling_rate": 16_000}


def test_a_sound_may_have_words_beside_it(db: Database, folder: Path) -> None:
    both = db.collection("both", encoder="openwakeword")
    assert both.index([folder], transcriber=PitchTranscriber()).inserted == 3
    assert {hit.entity.title for hit in both.search("high", mode="lexical")} == {"b.wav"}
    hits = both.search("high", inputs={"semantic": folder / "c.wav"}, limit=3)
    assert {hit.entity.title for hit in hits} == {"a.wav", "b.wav", "c.wav"}


def test_words_of_a_sound_stay_when_it_is_indexed_again(
    db: Database, talks: Collection, folder: Path, ears: PitchTranscriber
) -> None:
    db.create_space("talks", "sounds", encoder="openwakeword")
    permitted_files.permit_files(folder)
    work(db)
    db.switch_space("talks", "sounds")
    again = db.existing("talks")
    assert (again.index([folder]).unchanged, ears.heard) == (3, 3)
    assert {hit.entity.title for hit in again.search("middle", mode="lexical")} == {"a.wav", "c.wav"}
    work(db)
    assert db.check().differences == ()
    db.switch_space("talks", "main")
    assert db.existing("talks").search("middle", limit=1)[0].entity.title in ("a.wav", "c.wav")


def test_a_transcriber_that_the_database_names_is_not_loaded(talks: Collection, folder: Path, execute: Execute) -> None:
    execute('UPDATE neural.documents SET metadata = metadata || \'{"transcriber": "/tmp"}\'')
    report = talks.index([folder])
    assert (report.rejected, report.unchanged) == (3, 0)
    assert "were transcribed by '/tmp', which is not registered here; index with" in report.bad[0].reason
    with pytest.raises(UnpermittedModel):
        talks.search(folder / "a.wav")
    assert talks.index([folder], transcriber=PitchTranscriber()).rejected == 0


def test_a_sound_that_a_model_cannot_hear_stops_no_other(talks: Collection, folder: Path) -> None:
    class Deaf(PitchTranscriber):
        def transcribe(self, samples: Samples) -> Transcript:
            raise RuntimeError("out of memory")

    (folder / "b.txt").write_text("A text beside it.")
    report = talks.index([folder], transcriber=Deaf())
    assert (report.inserted, report.rejected) == (1, 0)  # the others were heard before
    deaf = Deaf()
    deaf.revision = "deaf"
    report = talks.index([folder], transcriber=deaf)
    assert (report.unchanged, report.rejected) == (1, 3)
    assert report.bad[0].reason == "it cannot be transcribed: RuntimeError: out of memory"
    wrong: Any = [Record("w", "", data=np.zeros((2, 9), np.int16), modality=Modality.AUDIO)]
    assert "expected int16 of shape (n,)" in talks.index(wrong).bad[0].reason


def test_what_is_spoken_is_no_query_language(
    talks: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch, ears: PitchTranscriber
) -> None:
    asked: dict[Any, Any] = {"a middle note.": 1.0, folder / "c.wav": -0.9}
    assert talks.search(asked, mode="semantic", limit=1)[0].score > 0
    monkeypatch.setattr(
        PitchTranscriber, "transcribe", lambda *_: Transcript.of([(0, 1, '- a "middle high" note* -low')])
    )
    found = talks.search(wav(tone("low", 0.5)), mode="lexical", limit=9)
    assert {hit.entity.title for hit in found} == {"a.wav", "b.wav", "c.wav"}
    by_words = talks.search([0.1] * 256, inputs={"lexical": wav(tone("low", 0.5))}, mode="hybrid", limit=9)
    assert len(by_words) == 3


def test_a_mapped_class_is_asked_by_a_sound(create: Create, tiny_clap: Path, ears: PitchTranscriber) -> None:
    class Base(DeclarativeBase):
        pass

    class Art(Base):
        __tablename__ = "art"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        search = Searchable("title", encoder=str(tiny_clap))
        words = Searchable("title", encoder="hash")

    with create(Base.metadata) as session:
        session.add_all([Art(title="a high note"), Art(title="a low note")])
        session.flush()
        Art.search.sync(session)
        Art.words.sync(session)
        session.commit()
        heard = ears.heard
        assert len(Art.search(wav(tone("high"))).all(session)) == 2
        assert ears.heard == heard
        assert [hit.entity.title for hit in Art.words(wav(tone("high"))).limit(1).all(session)] == ["a high note"]
        assert ears.heard == heard + 1


def test_records_and_mappings_may_have_sounds(db: Database, tiny_clap: Path) -> None:
    clips = db.collection("clips", encoder=tiny_clap)
    good: list[Any] = [
        Record("a", "", data=tone("low"), modality=Modality.AUDIO),
        {"id": "b", "audio": tone_of("high"), "by": "ada"},
        {"id": "c", "audio": wav(tone("middle", 3)), "text": "a long note"},
        {"id": "d", "text": "a text of its own", "audio": "no sound, but metadata"},
    ]
    report = clips.index(good)
    assert (report.inserted, report.rejected) == (4, 0), report.bad
    assert clips.search(tone_of("high"), limit=1)[0].entity.external_id == "b"
    assert clips.document("d").metadata_ == {"audio": "no sound, but metadata"}
    assert [hit.chunk.locator for hit in clips.search(wav(tone("middle", 3)), where="external_id = 'c'")]
    bad: list[Any] = [
        Record("e", "", data=tone("low").astype(np.float32), modality=Modality.AUDIO),
        {"id": "f", "audio": b"\0\1"},
        {"id": "g", "audio": {"array": [], "sampling_rate": 16_000}},
        {"id": "h", "image": wav(tone())},
        {"id": "i", "image": wav(tone()), "audio": wav(tone())},
    ]
    reasons = [str(each) for each in clips.index(bad).bad]
    expected = ["expected int16 of shape (n,), 16,000 a second", "audio: ", "shape (0,)", "field image has audio"]
    expected.append("it has fields image and audio; give it as one of them")
    assert len(reasons) == 5
    for part in expected:
        assert any(part in reason for reason in reasons), (part, reasons)


def test_another_model_of_sounds_reads_permitted_files_alone(
    db: Database, sounds: Collection, folder: Path, tiny_clap: Path, execute: Execute
) -> None:
    db.create_space("sounds", "clap", encoder=str(tiny_clap), dimensions=12)
    work(db)
    errors = [error for (error,) in execute("SELECT error FROM neural.failed")]
    assert len(errors) == 3
    assert all("which this host does not permit" in error for error in errors)
    permitted_files.permit_files(folder)
    db.retry_failed()
    work(db)
    assert db.check().differences == ()
    db.switch_space("sounds", "clap")
    assert db.existing("sounds").search(folder / "b.wav", limit=1)[0].entity.title == "b.wav"


def test_a_worker_opens_no_file_for_what_is_told_in_words(db: Database, talks: Collection, execute: Execute) -> None:
    execute(
        "INSERT INTO neural.documents (collection, external_id, title, content, metadata, uri, modality)"
        " VALUES ('talks', 'x', 'x', 'a quiet note.', %s, 'file:///etc/passwd', 'audio')",
        json.dumps({"seconds": [[0, 1]]}),
    )
    db.create_space("talks", "small", encoder="hash", options={"dimensions": 64})
    work(db)
    db.switch_space("talks", "small")
    assert execute("SELECT count(*) FROM neural.failed") == [(0,)]
    assert db.existing("talks").search("quiet", mode="lexical")[0].chunk.locator["seconds"] == [0, 1]


def test_the_command_line_hears(url: str, talks: Collection, folder: Path) -> None:
    def found(*arguments: str, stdin: bytes | None = None) -> list[dict[str, Any]]:
        shown = CliRunner().invoke(main, ["search", "talks", *arguments, "--json", "--database", url], input=stdin)
        assert shown.exit_code == 0, shown.output
        hits: list[dict[str, Any]] = json.loads(shown.stdout)["hits"]
        return hits

    asked = folder / "c.wav"
    assert found(str(asked), "--limit", "1")[0]["title"] in ("a.wav", "c.wav")
    assert found("--audio", "-", "--limit", "1", stdin=wav(tone("high")))[0]["title"] == "b.wav"
    assert found("low", "--where", "title = 'b.wav'")[0]["chunk"]["locator"]["seconds"] == [2, 3]


def test_the_command_line_names_a_transcriber(url: str, folder: Path) -> None:
    arguments = ["index", str(folder), "--collection", "talks", "--database", url, "--encoder", "hash"]
    shown = CliRunner().invoke(main, [*arguments, "--transcriber", "nobody"])
    assert (shown.exit_code, "no transcriber 'nobody'" in shown.output) == (1, True)
