"""From a picture to its RGB values, at most so many on a side, whatever it was: turned, animated, CMYK, transparent."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image, ImageOps

from . import day_told, told

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""Those that Pillow decodes itself; for EPS it would start another program."""

PIXELS = 200_000_000
"""The largest picture: twice what the largest cameras make, and a third of the memory that a process has."""

SIDE = 512
"""Pixels of the longer side that are kept: what the networks read at most."""


def extract(data: bytes) -> dict[str, Any]:
    """Return the pixels, as the height, the width and the RGB bytes, and what the file says about itself."""
    Image.MAX_IMAGE_PIXELS = None  # in this process alone: the limit is ours
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > PIXELS:
        return {"refused": f"it has {width:,} x {height:,} pixels, expected at most {PIXELS:,}; make it smaller"}
    about = _about(image)
    small = normal(image)
    metadata = {"width": width, "height": height, **{key: about[key] for key in ("created", "camera")}}
    shape = [small.height, small.width, 3]
    return {"pixels": small.tobytes(), "shape": shape, "text": about["caption"], "metadata": metadata}


def normal(image: Image.Image) -> Image.Image:
    """Return a picture as the networks read it: upright, RGB on white, its longer side at most `SIDE` pixels."""
    image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at a fraction of its size
    turned = told(lambda: image.getexif().get(ExifTags.Base.Orientation))
    small = _averageable(image)
    small = small.copy() if small is image else small
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if isinstance(turned, int):
        small.getexif()[ExifTags.Base.Orientation] = turned
        ImageOps.exif_transpose(small, in_place=True)
    if small.mode != "RGBA":
        return small.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")


def _averageable(image: Image.Image) -> Image.Image:
    """Return a picture whose colours can be averaged: no palette, no more than 8 bits."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        extremes: Any = image.getextrema()
        scale = 255 / ((extremes[1] - extremes[0]) or 1)
        beginning = -extremes[0] * scale
        return image.convert("F").point(lambda value: value * scale + beginning).convert("L")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _about(image: Image.Image) -> dict[str, Any]:
    """Return the day, the camera and the caption; the place, which its owner may not want to be known, is left."""
    exif: Any = told(image.getexif) or Image.Exif()
    taken = told(lambda: exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)) or exif.get(
        ExifTags.Base.DateTime
    )
    caption = exif.get(ExifTags.Base.ImageDescription) or image.info.get("Description") or image.info.get("comment")
    if isinstance(caption, bytes):
        caption = caption.decode("utf-8", "replace")
    return {
        "created": day_told(lambda: _moment(taken)),
        "camera": " ".join(str(exif.get(tag, "")).strip() for tag in (ExifTags.Base.Make, ExifTags.Base.Model)).strip(),
        "caption": caption.strip() if isinstance(caption, str) else "",
    }


def _moment(text: Any) -> datetime:
    return datetime.strptime(str(text)[:19], "%Y:%m:%d %H:%M:%S")
