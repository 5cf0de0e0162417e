"""From a mesh, or a cloud of points, to pictures of it from all sides, drawn without a graphics card.

Points are laid on its surface, evenly by area, and turned so that its longest extent lies first (principal axes), with
the heavier half of each axis forward (the sign of its third moment): then meshes that are turned, moved or scaled look
alike. The views are those from the twelve corners of an icosahedron: a z-buffer of the points, shaded by its slope.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.floating[Any]]

POINTS = 60_000
"""So many lie on the surface: four for each pixel of a view."""

SIDE = 128
"""Pixels on a side of a view."""

FILLED = 0.9
"""Which part of a view its farthest point may take."""

MOST_FACES = 1_500_000
"""As many as the memory of the process has room for."""

DARKEST, LIGHTEST, BEHIND = 40, 230, 255

HEAD = 65_536
"""From so many bytes it is told of which format a file is, but for OBJ, which may begin with anything."""

OFF = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:#[^\n]*\n\s*)*(ST|C|N|4)*OFF(?![A-Za-z])", re.IGNORECASE)
VERTEX = re.compile(rb"^[ \t]*v[ \t]+[-+.\d]", re.MULTILINE)
FACET = re.compile(rb"^[ \t]*facet\b", re.MULTILINE | re.IGNORECASE)


def extract(data: bytes) -> dict[str, Any]:
    """Return the views, and how large the mesh is."""
    import numpy as np
    import trimesh

    kind = _kind(data)
    if not kind:
        return {"refused": "it is no mesh of a known kind; give OFF, OBJ, STL, PLY or GLB"}
    if refused := _unreadable(kind, data) or _too_many(_declared(kind, data)[1]):
        return {"refused": refused}
    loaded: Any = trimesh.load(io.BytesIO(_plain(kind, data)), file_type=kind, process=False, skip_materials=True)
    vertices, faces = _parts(loaded)
    if refused := _cut_off(kind, data, loaded) or _too_many(len(faces)):
        return {"refused": refused}
    points = _surface(vertices, faces)
    if not len(points) or not np.ptp(points, axis=0).any():
        return {"refused": "it has no surface and no points that differ"}
    views = np.stack([_view(_aligned(points), camera) for camera in _cameras()])
    corners = vertices[faces].reshape(-1, 3) if len(faces) else points
    extents = [float(f"{extent:.6g}") for extent in np.ptp(corners, axis=0)]
    about = {"vertices": len(vertices), "faces": len(faces), "extents": extents}
    return {"array": views.tobytes(), "dtype": "uint8", "shape": list(views.shape), "metadata": about}


def _kind(data: bytes) -> str | None:
    head = data[:HEAD]
    if (head.lstrip()[:5].lower() == b"solid" and FACET.search(head)) or _binary_faces(data):
        return "stl"
    if head.startswith((b"ply\n", b"ply\r")):
        return "ply"
    if head.startswith(b"glTF"):
        return "glb"
    return "off" if OFF.match(head) else "obj" if VERTEX.search(data) else None


def _binary_faces(data: bytes) -> int:
    """Return how many faces a binary STL has, which is told by its length; some programs add a few bytes."""
    faces: int = struct.unpack("<I", data[80:84])[0] if len(data) >= 134 else 0
    return faces if 0 <= len(data) - 84 - 50 * faces < 50 else 0


def _declared(kind: str, data: bytes) -> tuple[int, int]:
    """Return how many vertices and faces a file says it has; 0 where it does not say so."""
    if kind == "stl":
        return 0, _binary_faces(data)
    if kind == "ply":
        found = [re.search(rb"^element %s (\d+)" % name, data[:HEAD], re.MULTILINE) for name in (b"vertex", b"face")]
        vertices, faces = (int(each[1][:18]) if each else 0 for each in found)
        return vertices, faces
    counts = re.match(rb"\s*(\d{1,18})\s+(\d{1,18})", _plain(kind, data[:HEAD])[3:]) if kind == "off" else None
    return (int(counts[1]), int(counts[2])) if counts else (0, data.count(b"\nf ") if kind == "obj" else 0)


def _too_many(faces: int) -> str:
    return f"it has {faces:,} faces, expected at most {MOST_FACES:,}; make it simpler" if faces > MOST_FACES else ""


def _cut_off(kind: str, data: bytes, loaded: Any) -> str:
    """Say where an OFF ends before all that it says it has; other formats are refused by what reads them."""
    declared = _declared(kind, data) if kind == "off" else (0, 0)
    vertices, faces = (len(getattr(loaded, name, ())) for name in ("vertices", "faces"))
    if vertices >= declared[0] and faces >= declared[1]:
        return ""
    said, there = f"{declared[0]:,} vertices and {declared[1]:,} faces", f"{vertices:,} and {faces:,}"
    return f"it says it has {said}, but {there} are there; is it whole?"


def _unreadable(kind: str, data: bytes) -> str:
    """Say what of a file cannot be read; what is needed of another file is not looked for."""
    if kind == "off":
        found = OFF.match(data)
        return "its vertices have four coordinates; save it as OFF" if found and found[1] == b"4" else ""
    if kind != "glb" or len(data) < 20:
        return ""
    told: Any = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    if any("uri" in buffer for buffer in told.get("buffers", [])):
        return "its numbers are in another file; save it with all in one file"
    needed = [name for name in told.get("extensionsRequired", []) if "compression" in name.lower()]
    return f"it is compressed by {needed[0]}; save it without" if needed else ""


def _plain(kind: str, data: bytes) -> bytes:
    """Return a file as plainly as its format can be written: without comments, colours, textures, relative numbers."""
    if kind == "obj":
        return b"\n".join(_plain_obj(data))
    if kind == "off":
        rest = data[found.end() :] if (found := OFF.match(data)) else data
        return b"OFF\n" + re.sub(rb"#[^\r\n]*", b"", rest)
    return data[: 84 + 50 * faces] if kind == "stl" and (faces := _binary_faces(data)) else data


def _plain_obj(data: bytes) -> Iterator[bytes]:
    """Yield the vertices and faces; a negative number of a vertex counts back from the last one before it."""
    vertices = 0
    for line in data.replace(b"\\\n", b" ").splitlines():
        words = line.partition(b"#")[0].split()
        if words[:1] == [b"v"]:
            vertices += 1
            yield b" ".join(words[:4])
        elif words[:1] == [b"f"]:
            numbers = [int(word.partition(b"/")[0]) for word in words[1:]]
            yield b"f " + b" ".join(b"%d" % (n if n > 0 else vertices + 1 + n) for n in numbers)


def _parts(loaded: Any) -> tuple[Array, NDArray[np.integer[Any]]]:
    """Return vertices, shape (n, 3), and those faces, shape (m, 3), whose corners are numbers; points have none."""
    import numpy as np

    every = loaded.dump() if hasattr(loaded, "dump") else [loaded]
    vertices, faces = [np.empty((0, 3))], [np.empty((0, 3), dtype=np.int64)]
    for each in every:
        corners = np.asarray(getattr(each, "faces", ()), dtype=np.int64).reshape(-1, 3)
        own = np.asarray(getattr(each, "vertices", ()), dtype=np.float64).reshape(-1, 3)
        inside = ((corners >= 0) & (corners < len(own))).all(axis=1)
        faces.append(corners[inside] + sum(map(len, vertices)))
        vertices.append(own)
    points, triangles = np.concatenate(vertices), np.concatenate(faces)
    points = np.where(np.abs(points) < 1e30, points, np.nan)
    known: Any = np.isfinite(points).all(axis=1)
    return points, triangles[known[triangles].all(axis=1)]


def _surface(vertices: Array, faces: NDArray[np.integer[Any]]) -> Array:
    """Return points on the faces, evenly by area, or of what has no area some of its vertices; always the same."""
    import numpy as np

    chance, corners = np.random.default_rng(0), vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not areas.sum() > 0:
        known = vertices[np.isfinite(vertices).all(axis=1)]
        return known[:: max(1, len(known) // POINTS)]
    at = (np.arange(POINTS) + chance.random(POINTS)) / POINTS * areas.sum()
    triangles = corners[np.minimum(np.searchsorted(np.cumsum(areas), at), len(corners) - 1)]
    along = chance.random((2, POINTS, 1))
    along = np.where(along.sum(axis=0) > 1, 1 - along, along)  # the other half of a parallelogram
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    surface: Array = triangles[:, 0] + along[0] * first + along[1] * second
    return surface


def _aligned(points: Array) -> Array:
    """Return points around their middle, turned by their principal axes, none farther than 1."""
    import numpy as np

    centred = points - points.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1).max()
    axes = np.linalg.eigh(np.cov(centred.T))[1][:, ::-1]
    turned = centred @ axes
    forward = np.where((turned**3).sum(axis=0) < 0, -1.0, 1.0)
    aligned: Array = turned * forward
    return aligned


def _cameras() -> list[Array]:
    """Return the axes of twelve cameras: to the right, up, and towards the eye."""
    import numpy as np

    golden, signs = (1 + 5**0.5) / 2, (-1.0, 1.0)
    corners = [np.roll((0.0, a, b * golden), turn) for turn in range(3) for a in signs for b in signs]
    cameras = []
    for corner in corners:
        eye = corner / np.linalg.norm(corner)
        right = np.cross((0.0, 0.0, 1.0) if abs(eye[2]) < 0.9 else (0.0, 1.0, 0.0), eye)
        right /= np.linalg.norm(right)
        cameras.append(np.stack([right, np.cross(eye, right), eye]))
    return cameras


def _view(points: Array, camera: Array) -> NDArray[np.uint8]:
    """Return a picture of points, RGB, shape (SIDE, SIDE, 3): grey on white, dark where the surface is steep."""
    import numpy as np

    seen = points @ camera.T
    places = np.rint((seen[:, :2] * FILLED + 1) / 2 * (SIDE - 1)).astype(int)
    depth = np.full((SIDE, SIDE), -np.inf)
    np.maximum.at(depth, (SIDE - 1 - places[:, 1], places[:, 0]), seen[:, 2])
    around = _around(depth, -np.inf)
    inside = np.isfinite(depth) | (np.isfinite(around).sum(axis=0) >= 5)  # a gap between points is no hole
    depth = np.where(np.isfinite(depth), depth, around.max(axis=0))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # places without any point
        smooth = np.nanmean(_around(np.where(inside, depth, np.nan), np.nan), axis=0)
    down, right = np.gradient(np.where(inside, smooth, -1.0), 2 / (SIDE - 1) / FILLED)
    grey = DARKEST + (LIGHTEST - DARKEST) / np.sqrt(1 + right**2 + down**2)
    picture = np.where(inside, grey, BEHIND).astype(np.uint8)
    return np.repeat(picture[:, :, np.newaxis], 3, axis=2)


def _around(values: Array, beyond: float) -> Array:
    """Return of each place it and its eight neighbours, shape (9, SIDE, SIDE)."""
    import numpy as np

    padded = np.pad(values, 1, constant_values=beyond)
    return np.stack([padded[row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)])
