"""From a picture to its RGB values, at most so many on a side, whatever it was: turned, animated, CMYK, transparent."""

from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import day_told, told

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""Those that Pillow decodes itself; for EPS it would start another program."""

VALUES = 600_000_000
"""The most values of a picture, three or four for each pixel: more than the largest cameras make, and a third of the
memory that a process has."""

CAPTION, CAMERA = 10_000, 200
"""So many characters of what the file says about itself are read."""

SIDE = 512
"""Pixels of the longer side that are kept: what the networks read at most."""


EXIF = 0x8769
ORIENTATION, DESCRIPTION, MOMENT, TAKEN = 0x0112, 0x010E, 0x0132, 0x9003
MAKERS = (0x010F, 0x0110)
"""Tags of EXIF 2.3, table 4 and following."""


def extract(data: bytes) -> dict[str, Any]:
    """Return the pixels, as the height, the width and the RGB bytes, and what the file says about itself."""
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # in this process alone: the limits are ours
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = len(data) + 2**24
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        return {"refused": "it is no picture of a known kind; give JPEG, PNG or the like"}
    width, height = image.size
    values = 4 if image.has_transparency_data else max(3, len(image.getbands()))
    if width * height > VALUES // values:
        most = VALUES // values
        return {"refused": f"it has {width:,} x {height:,} pixels, expected at most {most:,}; make it smaller"}
    about = _about(image)
    image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at a fraction of its size
    small = normal(image)
    metadata = {"width": width, "height": height, **{key: about[key] for key in ("created", "camera")}}
    shape = [small.height, small.width, 3]
    return {"array": small.tobytes(), "dtype": "uint8", "shape": shape, "text": about["caption"], "metadata": metadata}


def normal(image: Image.Image) -> Image.Image:
    """Return a picture as the networks read it: upright, RGB on white, its longer side at most `SIDE` pixels."""
    from PIL import Image, ImageOps

    turned = told(lambda: image.getexif().get(ORIENTATION))
    small = _averageable(image)
    small = small.copy() if small is image else small
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if isinstance(turned, int):
        small.getexif()[ORIENTATION] = turned
        ImageOps.exif_transpose(small, in_place=True)
    if small.mode != "RGBA":
        return small.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")


def _averageable(image: Image.Image) -> Image.Image:
    """Return a picture whose colours can be averaged: no palette, no more than 8 bits."""
    if image.mode == "I;16B":
        return _averageable(image.convert("I"))
    if image.mode in ("I;16", "I;16L", "I", "F"):
        extremes: Any = image.getextrema()
        scale = 255 / ((extremes[1] - extremes[0]) or 1)
        beginning = -extremes[0] * scale
        return image.convert("F").point(lambda value: value * scale + beginning).convert("L")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _about(image: Image.Image) -> dict[str, Any]:
    """Return the day, the camera and the caption; the place, which its owner may not want to be known, is left."""
    exif: Any = told(image.getexif)
    exif = {} if exif is None else exif
    taken = told(lambda: exif.get_ifd(EXIF).get(TAKEN)) or exif.get(MOMENT)
    caption = exif.get(DESCRIPTION) or image.info.get("Description") or image.info.get("comment")
    if isinstance(caption, bytes):
        caption = caption[: 4 * CAPTION].decode("utf-8", "replace")
    return {
        "created": day_told(lambda: _moment(taken)),
        "camera": " ".join(str(exif.get(tag, ""))[:CAMERA].strip() for tag in MAKERS).strip(),
        "caption": caption[:CAPTION].strip() if isinstance(caption, str) else "",
    }


def _moment(text: Any) -> datetime:
    return datetime.strptime(str(text)[:19], "%Y:%m:%d %H:%M:%S")
