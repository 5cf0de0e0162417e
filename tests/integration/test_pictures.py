"""Pictures in collections: from a folder to a hit, by every input; and what a worker may read for another model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pgneural import Collection, Database, Query, encoders
from pgneural.cli import main
from pgneural.errors import InvalidQuery, UnreadableInput, UnsupportedContent
from pgneural.load import permitted_files
from pgneural.store import queue
from pgneural.types import Modality, Record
from pgneural.worker import Worker
from tests.fixtures.pictures import encoded, folder_of, picture
from tests.fixtures.tables import Execute


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", "red", "green", "blue")


@pytest.fixture
def photos(db: Database, tiny_clip: Path, folder: Path) -> Collection:
    photos = db.collection("photos", encoder=tiny_clip)
    assert photos.index([folder]).inserted == 3
    return photos


@pytest.fixture(autouse=True)
def _nothing_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permitted_files, "_folders", set())
    monkeypatch.setattr(queue, "ATTEMPTS", 1)


def work(db: Database) -> None:
    Worker(db.url, as_superuser=True, make=encoders.make).run(once=True)


def test_a_folder_of_pictures_is_searched_by_a_picture(photos: Collection, folder: Path) -> None:
    path, drawn = folder / "red.png", picture("red")
    for question in (path, path.read_bytes(), drawn, np.asarray(drawn)):
        hits = photos.search(question, limit=2)
        assert hits[0].entity.title == "red.png"
        assert hits[0].score == pytest.approx(1, abs=1e-3)
        assert (hits[0].chunk.text, hits[0].chunk.locator) == ("", {})
    assert photos.index([folder]).unchanged == 3
    (folder / "red.png").write_bytes(encoded(picture("grey")))
    report = photos.index([folder])
    assert (report.updated, report.chunks_encoded) == (1, 1)
    assert photos.search(picture("grey"), limit=1)[0].entity.title == "red.png"
    assert photos.document(str(path)).modality == "image"


def test_pictures_and_texts_are_one_query(photos: Collection, folder: Path) -> None:
    report = photos.index([Record("t", "an owl hunts at night")])
    assert report.inserted == 1
    assert {hit.entity.external_id for hit in photos.search("owl", limit=9)} >= {"t", str(folder / "red.png")}
    just_red: dict[Any, float] = {folder / "red.png": 1.0}
    alone = photos.search(just_red, limit=4)
    assert alone[0].entity.title == "red.png"
    like_both: dict[Any, float] = {folder / "red.png": 1.0, "an owl hunts at night": 0.5}
    composed = photos.search(like_both, mode="semantic", limit=4)
    red, text = photos.encoder.encode_query(np.asarray(picture())), photos.encoder.encode_query("an owl hunts at night")
    by_hand = photos.search(red + 0.5 * text, limit=4)
    assert [hit.entity.external_id for hit in composed] == [hit.entity.external_id for hit in by_hand]
    assert photos.explain(folder / "red.png", limit=1).hits[0].entity.title == "red.png"
    pair = (str(folder / "red.png"), str(folder / "blue.png"))
    assert photos.discover(folder / "red.png", [pair], limit=1)
    by_leg = photos.search("owl", inputs={"semantic": folder / "green.png"}, limit=4)
    assert {hit.entity.title for hit in by_leg} >= {"green.png"}


def test_a_filter_never_makes_pictures_short(photos: Collection, folder: Path) -> None:
    hits = photos.search(picture(), where="metadata->>'path' NOT LIKE '%red%'", limit=2)
    assert {hit.entity.title for hit in hits} == {"green.png", "blue.png"}


def test_records_and_mappings_may_have_pictures(db: Database, tiny_dino: Path) -> None:
    shapes = db.collection("shapes", encoder=tiny_dino)
    pixels = np.asarray(picture())
    good: list[Any] = [
        Record("a", "", data=pixels, modality=Modality.IMAGE),
        {"id": "b", "image": picture("blue"), "colour": "blue"},
        {"id": "c", "image": encoded(picture("green")), "text": "a green square"},
    ]
    report = shapes.index(good)
    assert (report.inserted, report.rejected) == (3, 0), report.bad
    assert shapes.document("b").metadata_ == {"colour": "blue"}
    assert shapes.search(picture("blue"), limit=1)[0].entity.external_id == "b"
    assert shapes.search("square", mode="lexical")[0].entity.external_id == "c"
    bad: list[Any] = [
        Record("d", "a text"),
        Record("e", "", data=pixels.astype(np.float32), modality=Modality.IMAGE),
        Record("f", "", modality=Modality.IMAGE),
        {"id": "g", "image": b"\0\1"},
        {"id": "h", "image": {"url": "a.png"}},
    ]
    reasons = [str(each) for each in shapes.index(bad).bad]
    assert len(reasons) == 5
    for expected in (
        "does not accept text; it accepts image",
        "data is an array of float32, shape (40, 60, 3), expected uint8 of shape (height, width, 3)",
        "document 'f' has no image; give it as data",
        "image: what is given as bytes: it is no picture",
        "document 'h' has no text",
    ):
        assert any(expected in reason for reason in reasons), (expected, reasons)


def test_an_input_that_nothing_can_take_is_refused(db: Database, tiny_dino: Path, folder: Path) -> None:
    texts = db.collection("texts", encoder="hash")
    texts.index([{"id": "1", "text": "a red fox"}])
    with pytest.raises(UnsupportedContent, match="hash does not accept image; ask by text, or use an"):
        texts.search(folder / "red.png")
    with pytest.raises(InvalidQuery, match="needs a text"):
        texts.search(folder / "red.png", mode="lexical")
    with pytest.raises(UnreadableInput, match=r"nothing there can be read; 3 of a kind .* does not accept \(image\)"):
        texts.index([folder])
    (folder / "a.txt").write_text("an owl")
    report = texts.index([folder])
    assert (report.inserted, report.rejected) == (1, 0)
    assert report.skipped == {"of a kind that the encoder does not accept (image)": 3}
    shapes = db.collection("shapes", encoder=tiny_dino)
    shapes.index([folder])
    with pytest.warns(UserWarning, match="goes on by words alone: .* does not accept text; ask by image"):
        assert [hit.entity.title for hit in shapes.search("red")] == ["red.png"]
    with pytest.raises(UnsupportedContent, match="ask by image"):
        shapes.search("red", mode="semantic")
    with pytest.raises(InvalidQuery, match="which JSON cannot hold"):
        Query(folder / "red.png").to_json()


def test_another_model_reads_permitted_files_alone(
    db: Database, photos: Collection, folder: Path, tiny_dino: Path, execute: Execute
) -> None:
    photos.index([Record("elsewhere", "", "no file", data=np.asarray(picture("grey")), modality=Modality.IMAGE)])
    db.create_space("photos", "dino", encoder=str(tiny_dino), dimensions=16)
    work(db)
    errors = [error for (error,) in execute("SELECT error FROM neural.failed")]
    assert len(errors) == 4
    assert sum("which this host does not permit; permit its folder with --files" in error for error in errors) == 3
    assert sum("has no file, uri is None; index it again" in error for error in errors) == 1
    permitted_files.permit_files(folder)
    assert db.retry_failed() == 4
    work(db)
    assert len(execute("SELECT error FROM neural.failed")) == 1
    photos.delete("elsewhere")
    work(db)
    assert db.check().differences == ()
    db.switch_space("photos", "dino")
    again = db.existing("photos")
    assert again.encoder.dimensions == 16
    assert again.search(folder / "blue.png", limit=1)[0].entity.title == "blue.png"


def test_a_uri_outside_of_the_permitted_folders_is_not_opened(
    db: Database, photos: Collection, folder: Path, tmp_path: Path, tiny_dino: Path, execute: Execute
) -> None:
    """Whoever may write documents names files: by a link, by dots, by a beginning of the same letters, by a pipe."""
    secret = folder_of(tmp_path / "photos-secret", "grey") / "grey.png"
    (folder / "link.png").symlink_to(secret)
    os.mkfifo(folder / "pipe.png")
    (folder / "text.png").write_text("a text")
    names = ["link.png", "../photos-secret/grey.png", "pipe.png", "text.png", "gone.png", "%00.png"]
    rows = [(f"x{n}", f"{folder.as_uri()}/{name}") for n, name in enumerate(names)]
    rows += [("y", secret.as_uri()), ("z", "http://127.0.0.1:1/a.png"), ("w", str(secret)), ("v", "file://[x")]
    rows += [("u", (folder / "red.png").as_uri().replace("file://", "file://other.host"))]
    for id_, uri in rows:
        execute(
            "INSERT INTO neural.documents (collection, external_id, title, content, metadata, uri, modality)"
            " VALUES ('photos', %s, 'x', '', '{}', %s, 'image')",
            id_,
            uri,
        )
    permitted_files.permit_files(folder)
    db.create_space("photos", "dino", encoder=str(tiny_dino), dimensions=16)
    work(db)
    failed = execute(
        "SELECT count(*) FROM neural.failed f JOIN neural.spaces s ON s.id = f.space_id WHERE s.name = 'dino'"
    )
    assert failed == [(len(rows),)]


def test_the_command_line_searches_by_a_picture(
    url: str, photos: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_clip: Path
) -> None:
    def found(*arguments: str, stdin: bytes | None = None) -> list[str]:
        shown = CliRunner().invoke(
            main, ["search", "photos", *arguments, "--json", "--database", url, "--model", str(tiny_clip)], input=stdin
        )
        assert shown.exit_code == 0, shown.output
        return [hit["title"] for hit in json.loads(shown.stdout)["hits"]]

    path = folder / "blue.png"
    assert found(str(path), "--limit", "1") == ["blue.png"]
    assert found("--image", str(path), "--limit", "1") == ["blue.png"]
    assert found("--image", "-", "--limit", "1", stdin=path.read_bytes()) == ["blue.png"]
    assert found("blue", "--image", str(path), "--limit", "1") == ["blue.png"]
    assert len(found("no such file.png")) == 3


def test_a_picture_that_changes_changes_in_every_space(
    db: Database, photos: Collection, folder: Path, tiny_dino: Path, execute: Execute
) -> None:
    permitted_files.permit_files(folder)
    db.create_space("photos", "dino", encoder=str(tiny_dino), dimensions=16)
    work(db)
    (folder / "red.png").write_bytes(encoded(picture("grey")))
    assert photos.index([folder]).updated == 1
    work(db)
    db.switch_space("photos", "dino")
    again = db.existing("photos")
    assert again.search(picture("grey"), limit=1)[0].entity.title == "red.png"
    green = (folder / "green.png").as_uri()
    execute("UPDATE neural.documents SET uri = %s, updated_at = now(), title = 'moved' WHERE title = 'blue.png'", green)
    work(db)
    assert {hit.entity.title for hit in again.search(picture("green"), limit=2)} == {"green.png", "moved"}
    assert db.check().differences == ()


def test_a_text_that_becomes_a_picture_loses_the_vector_of_the_text(
    db: Database, photos: Collection, folder: Path, tiny_dino: Path, execute: Execute
) -> None:
    photos.index([Record("t", "an owl hunts at night")])
    db.create_space("photos", "dino", encoder=str(tiny_dino), dimensions=16)
    execute("UPDATE neural.documents SET modality = 'image', uri = '/gone.png', content = '' WHERE external_id = 't'")
    work(db)
    assert ("t",) in execute(
        "SELECT d.external_id FROM neural.failed f JOIN neural.documents d ON f.key = jsonb_build_array(d.id)"
    )


def test_the_words_of_a_picture_follow_its_caption(photos: Collection) -> None:
    drawn = picture("grey")
    photos.index({"id": "c", "image": drawn, "text": "a green square"})
    assert photos.index({"id": "c", "image": drawn, "text": "a yellow submarine"}).updated == 1
    assert photos.search("square", mode="lexical") == []
    assert [hit.entity.external_id for hit in photos.search("submarine", mode="lexical")] == ["c"]


def test_pictures_that_are_read_back_stay_pictures(db: Database, photos: Collection, folder: Path, url: str) -> None:
    documents = list(photos.documents())
    assert photos.index(documents).unchanged == 3
    assert photos.search(picture("blue"), limit=1)[0].score == pytest.approx(1, abs=1e-3)
    exported = CliRunner().invoke(main, ["export", "photos", "--database", url])
    assert [json.loads(line)["modality"] for line in exported.stdout.splitlines()] == ["image"] * 3
    path = folder.parent / "export.jsonl"
    path.write_text(exported.stdout)
    copied = db.collection("copy", encoder=photos.encoder)
    assert copied.index([path]).bad[0].reason.startswith("the database names file")
    permitted_files.permit_files(folder)
    assert copied.index([path]).inserted == 3
    assert copied.search(picture("blue"), limit=1)[0].entity.title == "blue.png"


def test_sparse_vectors_are_of_texts_alone(db: Database, tiny_clip: Path, tiny_sparse: Path, execute: Execute) -> None:
    mixed = db.collection("mixed", encoder=tiny_clip, sparse=tiny_sparse)
    mixed.index([{"id": "p", "image": picture()}, {"id": "t", "text": "the quick brown fox"}])
    assert [hit.entity.external_id for hit in mixed.search("fox", mode="sparse")] == ["t"]
    assert {hit.entity.external_id for hit in mixed.search("fox")} == {"p", "t"}
    assert mixed.index([{"id": "p", "image": picture()}]).unchanged == 1


def test_a_long_text_that_ends_as_a_picture_is_a_text(url: str, photos: Collection, tiny_clip: Path) -> None:
    text = "owl " * 17 + "x" * 300 + " photo.png"
    shown = CliRunner().invoke(main, ["search", "photos", text, "--mode", "lexical", "--database", url])
    assert shown.exit_code == 0, shown.output
