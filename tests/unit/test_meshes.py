"""Meshes of every kind, and what is none: drawn from all sides, however they are turned, or refused by name."""

from __future__ import annotations

import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from pgneural import encoders, load
from pgneural.load import read_question
from pgneural.types import BadRecord, EncoderInput, Modality, Record
from tests.fixtures.meshes import mesh, written
from tests.fixtures.pictures import picture
from tests.unit.test_formats import broken


def read(path: Path, content: bytes) -> Record | BadRecord:
    path.write_bytes(content)
    (record,) = load.read([path])
    return record


def views(record: Record | BadRecord) -> Any:
    assert isinstance(record, Record), record
    assert record.modality is Modality.MESH
    assert isinstance(record.data, np.ndarray)
    assert record.data.shape == (12, 128, 128, 3)
    assert record.data.dtype == np.uint8
    return record.data


@pytest.mark.parametrize("kind", ["off", "obj", "stl", "stl_ascii", "ply", "glb"])
def test_a_mesh_is_read_whatever_it_is(tmp_path: Path, kind: str) -> None:
    record = read(tmp_path / "a.off", written(mesh("box"), kind))  # a wrong name does not matter
    drawn = views(record)
    assert all(1000 < (view < 255).all(axis=2).sum() < 14_000 for view in drawn)
    assert isinstance(record, Record)
    about = record.metadata
    assert (about["faces"], about["extents"]) == (12, [1, 1.3, 1.7])
    by_content = read_question(written(mesh("box"), kind)) if kind in ("off", "ply", "glb", "stl_ascii") else None
    assert by_content is None or np.array_equal(by_content.data, drawn)


def test_what_is_turned_moved_and_scaled_looks_alike(tmp_path: Path) -> None:
    drawn = [
        views(read(tmp_path / "a.off", written(mesh(shape, turned))))
        for shape in ("ring", "rod")
        for turned in (None, 1, 2)
    ]
    ring, *rings, rod, _, _ = drawn
    for other in rings:
        alike = np.abs(other.astype(int) - ring).mean()
        assert alike < np.abs(rod.astype(int) - ring).mean() / 2


SQUARE = b"0 0 0\n1 0 0\n1 1 0\n0 1 0\n"

ODD: dict[str, bytes] = {
    "a.off": b"\xef\xbb\xbfoff # squares\r\n4 1 0 # counts\n" + SQUARE + b"4 0 1 2 3\n",
    "glued.off": b"OFF4 1 0\n" + SQUARE + b"4 0 1 2 3\n",
    "colours": b"# a comment\nCOFF\n4 1 0\n" + SQUARE.replace(b"\n", b" 255 0 0 255\n") + b"4 0 1 2 3\n",
    "a.obj": b"# caf\xe9\n" * 9000
    + b"v "
    + SQUARE.strip().replace(b"\n", b"\rv ")
    + b"\rf 1 2 3 # half\rf 1/1/1 3/3 4//4\r",
    "negative.obj": b"v 0 0 5\nf -1 -1 -1\nv " + SQUARE.strip().replace(b"\n", b"\nv ") + b"\nf -4 -3 -2 -1\nv 0 0 9\n",
    "a.stl": b"SOLID a\n"
    + b"".join(
        b"FACET NORMAL 0 0 1\nOUTER LOOP\n" + corners + b"ENDLOOP\nENDFACET\n"
        for corners in (
            b"VERTEX 0 0 0\nVERTEX 1 0 0\nVERTEX 1 1 0\n",
            b"VERTEX 0 0 0\nVERTEX 1 1 0\nVERTEX 0 1 0\n",
        )
    )
    + b"ENDSOLID\n",
    "longer.stl": written(mesh("box"), "stl") + b"\0\0",
}


@pytest.mark.parametrize("name", ODD)
def test_files_as_programs_write_them_are_read(tmp_path: Path, name: str) -> None:
    record = read(tmp_path / name, ODD[name])
    assert isinstance(record, Record), record
    expected = [1, 1.3, 1.7] if name == "longer.stl" else [1, 1, 5 if name == "negative.obj" else 0]
    assert np.abs(np.subtract(record.metadata["extents"], expected)).max() < 0.01


def test_a_text_that_begins_as_a_mesh_is_a_text(tmp_path: Path) -> None:
    record = read(tmp_path / "NOTES", b"OFF 20 percent of all shoes\n")
    assert isinstance(record, Record)
    assert record.modality is Modality.TEXT


def test_points_of_a_scene_are_drawn(tmp_path: Path) -> None:
    cloud = trimesh.PointCloud(mesh("ball").sample(500, seed=1))  # type: ignore[no-untyped-call]
    record = read(tmp_path / "a.glb", written(trimesh.Scene([cloud]), "glb"))
    assert views(record).min() < 200


def test_points_without_faces_are_drawn(tmp_path: Path) -> None:
    cloud = trimesh.PointCloud(mesh("ball").sample(5000, seed=1))  # type: ignore[no-untyped-call]
    record = read(tmp_path / "a.ply", written(cloud, "ply"))
    assert views(record).min() < 200
    assert isinstance(record, Record)
    assert (record.metadata["vertices"], record.metadata["faces"]) == (5000, 0)


def test_a_scene_is_one_mesh(tmp_path: Path) -> None:
    scene = trimesh.Scene([mesh("ball"), mesh("rod")])
    record = read(tmp_path / "a.glb", written(scene, "glb"))
    assert isinstance(record, Record)
    assert record.metadata["faces"] == len(mesh("ball").faces) + len(mesh("rod").faces)


def glb(told: dict[str, Any]) -> bytes:
    """Return a GLB of a header alone."""
    written_header = json.dumps(told).encode()
    sizes = struct.pack("<II", 2, 20 + len(written_header)), struct.pack("<I", len(written_header))
    return b"glTF" + sizes[0] + sizes[1] + b"JSON" + written_header


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.off", b"", "the file is empty"),
        ("a.obj", b"an ordinary text\n" * 9, "no mesh of a known kind"),
        ("a.off", b"OFF\n0 0 0\n", "no surface and no points"),
        ("a.off", b"OFF\n3 1 0\n1 1 1\n1 1 1\n1 1 1\n3 0 1 2\n", "no surface and no points"),
        ("a.off", b"OFF\n3 1 0\nnan 0 0\n0 nan 0\n0 0 inf\n3 0 1 2\n", "no surface and no points"),
        ("a.glb", b"glTF\2\0\0\0\xff\xff\xff\xff", "cannot be read"),
        ("a.off", b"OFF\n99999999 99999999 0\n0 0 0\n", "it has 99,999,999 faces, expected at most 1,500,000"),
        ("a.off", b"OFF\n9 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "cannot be read|9 vertices and 1 faces, but"),
        ("a.off", b"4OFF\n3 1 0\n0 0 0 1\n1 0 0 1\n0 1 0 1\n3 0 1 2\n", "its vertices have four coordinates"),
        ("a.glb", glb({"buffers": [{"byteLength": 9, "uri": "/etc/passwd"}]}), "its numbers are in another file"),
        ("a.glb", glb({"extensionsRequired": ["KHR_draco_mesh_compression"]}), "compressed by KHR_draco_mesh_comp"),
        ("a.obj", b"#\n" + b"\n" * 500_000, "no mesh of a known kind"),
        ("a.stl", b"solid x\n" + b"\n" * 500_000, "no mesh of a known kind"),
        ("a.obj", b" " * 500_000, "no mesh of a known kind"),
    ],
)
def test_what_is_no_mesh_is_refused_with_its_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    record = read(tmp_path / name, content)
    assert isinstance(record, BadRecord)
    assert re.search(reason, record.reason), record.reason


def test_a_mesh_names_no_other_file(tmp_path: Path) -> None:
    """Its materials are not read, wherever they are."""
    (tmp_path / "secret.mtl").write_text("newmtl red\nKd 1 0 0\n")
    material = f"mtllib {tmp_path}/secret.mtl\nmtllib http://127.0.0.1:1/a.mtl\n".encode()
    assert views(read(tmp_path / "a.obj", material + written(mesh("box"), "obj"))).shape[0] == 12


@pytest.mark.parametrize("kind", ["off", "obj", "stl", "ply", "glb"])
def test_broken_meshes_stop_nothing(tmp_path: Path, kind: str) -> None:
    chance, content = random.Random(kind), written(mesh("ring"), kind)
    for number in range(40):
        (tmp_path / f"{number:03d}.off").write_bytes(broken(content, chance))
    (tmp_path / "whole.off").write_bytes(content)
    read_all = list(load.read([tmp_path]))
    assert len(read_all) == 41
    assert isinstance(read_all[-1], Record)
    assert all(record.reason for record in read_all if isinstance(record, BadRecord))


def test_encoders_of_pictures_see_a_mesh_from_all_sides(tiny_clip: Path, tmp_path: Path) -> None:
    drawn = views(read(tmp_path / "a.off", written(mesh("ring"))))
    for encoder in (encoders.get(tiny_clip), encoders.get("efficientnet-lite0")):
        assert {Modality.IMAGE, Modality.MESH} <= encoder.modalities
        items: list[EncoderInput] = [np.asarray(picture()), drawn, np.asarray(picture("blue"))]
        vectors = encoder.encode_documents(items)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        assert np.allclose(vectors[1], encoder.encode_query(drawn), atol=1e-4)
        assert np.allclose(vectors[[0, 2]], encoder.encode_documents([items[0], items[2]]), atol=1e-4)
