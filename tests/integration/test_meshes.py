"""Meshes in collections: found by a mesh, however it is turned, and by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pgneural import Collection, Database, encoders
from pgneural.cli import main
from pgneural.load import permitted_files
from pgneural.worker import Worker
from tests.fixtures.meshes import folder_of, mesh, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "shapes", "ball", "rod", "ring")


@pytest.fixture
def shapes(db: Database, folder: Path) -> Collection:
    shapes = db.collection("shapes", encoder="efficientnet-lite0")
    assert shapes.index([folder]).inserted == 3
    return shapes


@pytest.mark.model
def test_a_mesh_finds_what_has_its_shape(shapes: Collection, folder: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.stl"
    asked.write_bytes(written(mesh("ring", 3), "stl"))
    hits = shapes.search(asked, limit=3)
    assert (hits[0].entity.title, hits[0].chunk.locator) == ("ring.off", {})
    assert shapes.search(written(mesh("rod", 4)), where="title <> 'rod.off'", limit=9)
    assert shapes.index([folder]).unchanged == 3
    records: list[Any] = [{"id": "m", "mesh": asked, "by": "ada"}, {"id": "n", "mesh": b"none"}]
    report = shapes.index(records)
    assert (report.inserted, report.rejected) == (1, 1), report.bad
    assert shapes.search(folder / "ring.off", where="metadata->>'by' = 'ada'")[0].entity.external_id == "m"


def test_the_command_line_finds_meshes_and_a_worker_draws_them(
    url: str, db: Database, folder: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permitted_files, "_folders", set())
    shapes = db.collection("shapes", encoder=tiny_clip)
    shapes.index([folder])
    arguments = ["search", "shapes", str(folder / "ball.off"), "--json", "--limit", "1", "--database", url]
    shown = CliRunner().invoke(main, [*arguments, "--model", str(tiny_clip)])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["hits"][0]["title"] == "ball.off"
    db.create_space("shapes", "small", encoder=str(tiny_clip), options={"dimensions": 8}, dimensions=8)
    permitted_files.permit_files(folder)
    Worker(db.url, as_superuser=True, make=encoders.make).run(once=True)
    assert db.check().differences == ()
    db.switch_space("shapes", "small")
    assert db.existing("shapes").search(folder / "rod.off", limit=1)[0].entity.title == "rod.off"


@pytest.mark.model
def test_content_decides_the_encoder_of_a_new_collection(url: str, db: Database, folder: Path) -> None:
    def run(*arguments: str) -> str:
        shown = CliRunner().invoke(main, ["index", *arguments, "--database", url])
        assert shown.exit_code == 0, shown.output
        return shown.output

    run(str(folder), "--collection", "parts")
    assert db.existing("parts").encoder.name == "efficientnet-lite0"
    (folder / "a.txt").write_text("a text")
    assert "3 unchanged" in run(str(folder), "--collection", "parts")
    run(str(folder / "a.txt"), "--collection", "notes")
    assert "of a kind that the encoder does not accept (mesh)" in run(str(folder), "--collection", "notes")
