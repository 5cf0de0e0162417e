"""From a sound to its samples: one channel, 16,000 a second, whatever it was."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import told

if TYPE_CHECKING:
    import av
    import numpy as np

RATE = 16_000

MOST_SECONDS = 2 * 3600
"""The longest sound: 230 MB of samples."""

CONTAINERS = "aac,aiff,amr,asf,au,flac,matroska,webm,mov,mp4,m4a,3gp,mp3,ogg,wav,w64,caf"
"""The containers that FFmpeg may take a file for. A playlist, which would make it open other files, is none of them."""

OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}

TAGS = {"artist": "author", "album": "album", "date": "created", "comment": "comment", "genre": "genre"}
"""What a file says about itself, and our names for it."""

TAG = 200
"""So many characters of each are read."""


def extract(data: bytes) -> dict[str, Any]:
    """Return the samples, and what the file says about itself."""
    import av
    import numpy as np

    try:
        container = av.open(io.BytesIO(data), mode="r", options=OPTIONS)
    except (av.InvalidDataError, av.FFmpegError):
        return {"refused": "it is no sound of a known kind; give WAV, FLAC, MP3, OGG or the like"}
    with container:
        if not container.streams.audio:
            return {"refused": "it has no sound"}
        parts, length = [], 0
        for part in _resampled(container):
            parts.append(part)
            length += len(part)
            if length > MOST_SECONDS * RATE:
                hours = MOST_SECONDS // 3600
                return {"refused": f"it is longer than {hours} hours, the limit for one sound; split it"}
        if not length:
            return {"refused": "it has no samples; is it whole?"}
        about = _about(container)
    samples = np.concatenate(parts)
    about["duration"] = round(length / RATE, 2)
    title = about.pop("title", "")
    return {"array": samples.tobytes(), "dtype": "int16", "shape": [length], "title": title, "metadata": about}


def _resampled(container: av.container.InputContainer) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the samples of the first stream of sound; what is broken in it is left out."""
    import av

    resampler: Any = None
    form: tuple[str, str, int] | None = None
    try:
        for packet in container.demux(container.streams.audio[0]):
            for frame in _decoded(packet):
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):  # files were joined
                    yield from _last(resampler)
                    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
                frame.pts = None  # it would be silence where packets are missing
                for each in resampler.resample(frame):
                    yield each.to_ndarray()[0]
    except av.FFmpegError:  # it ends in the middle
        pass
    yield from _last(resampler)


def _last(resampler: Any) -> Iterator[np.ndarray[Any, Any]]:
    for each in resampler.resample(None) if resampler else ():
        yield each.to_ndarray()[0]


def _decoded(packet: Any) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


def _about(container: av.container.InputContainer) -> dict[str, Any]:
    tags: Any = told(lambda: {**container.streams.audio[0].metadata, **container.metadata}) or {}
    tags = {str(name).lower(): str(value)[:TAG].strip() for name, value in tags.items()}
    return {"title": tags.get("title", ""), **{ours: tags.get(name, "") for name, ours in TAGS.items()}}
