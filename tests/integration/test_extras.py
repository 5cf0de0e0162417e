"""What needs a heavy package names it where it is missing; the rest goes on without."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pgneural import Collection, CrossEncoderReranker, Database, Record, evaluate
from pgneural.cli import main
from pgneural.encoders.extra import MultiVectorTransformerEncoder, SparseTransformerEncoder
from pgneural.encoders.permitted import permit
from pgneural.errors import MissingExtra

HEAVY = ("torch", "sentence_transformers", "transformers", "trafilatura", "ir_measures", "lxml")


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    permit(folder)
    return str(folder.resolve())


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules, *HEAVY]:
        if name.partition(".")[0] in HEAVY:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def notes(db: Database, model: str) -> Collection:
    db.collection("notes", encoder="hash").index([Record(str(n), f"fox {n}") for n in range(3)])
    with db.engine.begin() as connection:  # as if the model had made the vectors elsewhere
        connection.execute(sa.text("UPDATE neural.spaces SET encoder = :model, options = '{}'"), {"model": model})
    return db.existing("notes")


@pytest.mark.usefixtures("without")
def test_searches_without_a_model(db: Database, notes: Collection, model: str, url: str) -> None:
    assert notes.search("fox 2", mode="lexical")[0].entity.external_id == "2"
    assert len(notes.like("1")) == 2
    assert notes.facets("title", query="fox")
    with pytest.raises(MissingExtra, match=r"sentence_transformers.*; run: pip install 'pgneural\[local\]'"):
        notes.search("fox", mode="semantic")
    with pytest.warns(UserWarning, match=r"the search goes on by words alone: .*pip install 'pgneural\[local\]'"):
        hits = notes.search("fox 2")
    assert hits[0].entity.external_id == "2"
    with pytest.raises(MissingExtra):  # of what has a distance, and there is none
        notes.search("fox", max_distance=0.5)
    run = CliRunner(env={"PGNEURAL_DATABASE_URL": url, "PGNEURAL_MODEL": model})
    assert run.invoke(main, ["search", "notes", "fox", "--mode", "lexical"]).exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        by_words = run.invoke(main, ["search", "notes", "fox 2"])
    assert by_words.exit_code == 0
    assert "the search goes on by words alone" in by_words.stderr
    said = run.invoke(main, ["search", "notes", "fox", "--mode", "semantic"])
    assert said.exit_code == 1
    assert said.output.startswith("Error: encoder ")
    assert "run: pip install 'pgneural[local]'" in said.output
    assert said.output.count("\n") == 1


@pytest.mark.usefixtures("without")
def test_every_heavy_part_is_named(db: Database, notes: Collection, tmp_path: Path, model: str) -> None:
    for make in (CrossEncoderReranker, SparseTransformerEncoder, MultiVectorTransformerEncoder):
        with pytest.raises(MissingExtra, match=r"pip install 'pgneural\[local\]'"):
            make(model)
    with pytest.raises(MissingExtra, match=r"an evaluation needs ir_measures.*pip install 'pgneural\[evaluate\]'"):
        evaluate(notes, {"q": "fox"}, {"q": {"1": 1}}, modes=["lexical"])
    page = tmp_path / "page.html"
    page.write_text("<p>fox")
    (bad,) = db.collection("pages", encoder="hash").index(page).bad
    assert "HTML needs trafilatura, which is not installed; run: pip install 'pgneural[html]'" in str(bad)


def test_importing_needs_none_of_them() -> None:
    hide = "; ".join(f"sys.modules[{name!r}] = None" for name in HEAVY)
    program = f"import sys; {hide}; import pgneural, pgneural.cli, pgneural.worker, pgneural.migrate.plugin"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
