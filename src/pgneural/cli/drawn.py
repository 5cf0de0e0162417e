"""Pictures that the demo draws itself: things that a network for photos knows when it sees them drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgneural.extras import needed

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIDE = 320


def drawings() -> Iterator[tuple[str, Image]]:
    """Yield pictures with names that say nothing of them."""
    every = [clock(10, 10), traffic_light(0), honeycomb(), crossword(1), clock(3, 40), traffic_light(2), crossword(2)]
    for number, drawing in enumerate(every, start=1):
        yield f"drawing {number}", drawing


def clock(hour: int, minute: int) -> Image:
    """Draw a clock."""
    image, draw = _sheet("white")
    draw.ellipse((30, 30, 290, 290), fill="ivory", outline="black", width=10)
    for hours in range(12):
        draw.line((_at(hours / 12, 105), _at(hours / 12, 118)), fill="black", width=6)
    for turn, length, width in (((hour + minute / 60) / 12, 60, 9), (minute / 60, 95, 6)):
        draw.line(((160, 160), _at(turn, length)), fill="black", width=width)
    return image


def traffic_light(lit: int) -> Image:
    """Draw a traffic light; the lamp of this number shines."""
    image, draw = _sheet("lightblue")
    draw.rectangle((150, 230, 170, 320), fill="gray")
    draw.rounded_rectangle((110, 20, 210, 240), 15, fill="black")
    for lamp, (shining, dark) in enumerate((("red", "#400"), ("yellow", "#440"), ("lime", "#040"))):
        draw.ellipse((130, 32 + 70 * lamp, 190, 92 + 70 * lamp), fill=shining if lamp == lit else dark)
    return image


def honeycomb() -> Image:
    """Draw a honeycomb."""
    image, draw = _sheet("#c80")
    for row in range(-1, 12):
        for column in range(-1, 10):
            centre = (column * 39.6 + (row % 2) * 19.8, row * 34.3, 22)
            draw.regular_polygon(centre, 6, rotation=30, fill="#fc3", outline="#850", width=4)
    return image


def crossword(seed: int) -> Image:
    """Draw an empty crossword puzzle."""
    image, draw = _sheet("white")
    chance = random.Random(seed)
    for y in range(0, SIDE, 32):
        for x in range(0, SIDE, 32):
            fill = "black" if chance.random() < 0.3 else "white"
            draw.rectangle((x, y, x + 32, y + 32), fill=fill, outline="black", width=2)
    return image


def _sheet(colour: str) -> tuple[Image, ImageDraw]:
    with needed("a picture", "image"):
        from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), colour)
    return image, ImageDraw.Draw(image)


def _at(turn: float, length: float) -> tuple[float, float]:
    """Return a point at so much of a turn from twelve o'clock, so far from the middle."""
    angle = 2 * math.pi * turn
    return 160 + length * math.sin(angle), 160 - length * math.cos(angle)
