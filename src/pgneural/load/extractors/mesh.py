"""From a mesh, or a cloud of points, to pictures of it from all sides, drawn without a graphics card.

Points are laid on its surface, evenly by area, and turned so that its longest extent lies first (principal axes), with
the heavier half of each axis forward (the sign of its third moment): then meshes that are turned, moved or scaled look
alike. The views are those from the twelve corners of an icosahedron: a z-buffer of the points, shaded by its slope.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
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

MOST_FACES = 5_000_000

DARKEST, LIGHTEST, BEHIND = 40, 230, 255

HEAD = 65_536
"""From so many bytes it is told of which format a file is."""

BEGINNINGS = {
    "off": rb"\A\s*(?:#[^\n]*\n\s*)*[A-Z4]*OFF\b",
    "ply": rb"\Aply\r?\n",
    "glb": rb"\AglTF",
    "obj": rb"^\s*v\s+[-\d.]",
}
"""How files of each format begin, or what is among their first lines; STL is told before."""


def extract(data: bytes) -> dict[str, Any]:
    """Return the views, and how large the mesh is."""
    import numpy as np
    import trimesh

    kind = _kind(data)
    if not kind:
        return {"refused": "it is no mesh of a known kind; give OFF, OBJ, STL, PLY or GLB"}
    loaded: Any = trimesh.load(io.BytesIO(data), file_type=kind, process=False, skip_materials=True)
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_mesh() if loaded.geometry else None
    vertices, faces = _parts(loaded)
    if len(faces) > MOST_FACES:
        return {"refused": f"it has {len(faces):,} faces, expected at most {MOST_FACES:,}; make it simpler"}
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
    if head.lstrip().startswith(b"solid") and re.search(rb"^\s*facet\b", head, re.MULTILINE):
        return "stl"
    if len(data) > 84 and len(data) == 84 + 50 * struct.unpack("<I", data[80:84])[0]:
        return "stl"
    return next((kind for kind, known in BEGINNINGS.items() if re.search(known, head, re.MULTILINE)), None)


def _parts(loaded: Any) -> tuple[Array, NDArray[np.integer[Any]]]:
    """Return vertices, shape (n, 3), and those faces, shape (m, 3), whose corners are numbers; points have none."""
    import numpy as np

    vertices = np.asarray(getattr(loaded, "vertices", np.empty((0, 3))), dtype=np.float64).reshape(-1, 3)
    faces = np.asarray(getattr(loaded, "faces", np.empty((0, 3))), dtype=np.int64).reshape(-1, 3)
    inside = ((faces >= 0) & (faces < len(vertices))).all(axis=1)
    vertices = np.where(np.abs(vertices) < 1e30, vertices, np.nan)
    faces = faces[inside]
    return vertices, faces[np.isfinite(vertices[faces]).all(axis=(1, 2))]


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
