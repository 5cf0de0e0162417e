"""Sounds of every kind, and what is none: read as networks want them, or refused by name; and what is spoken there."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgneural import encoders, load, transcribers
from pgneural.chunkers import Lengths, cut
from pgneural.errors import EncoderUnavailable, InvalidQuery, UnknownEncoder, UnpermittedModel
from pgneural.load import read_question
from pgneural.options import vector_of
from pgneural.store.vectors import Indexed, Storage, VectorIndex
from pgneural.transcribers import Transcript
from pgneural.types import (
    SAMPLING_RATE,
    BadRecord,
    Content,
    Distance,
    EncoderInput,
    Media,
    Modality,
    Record,
    seconds_of,
)
from tests.fixtures.pictures import encoded as encoded_picture
from tests.fixtures.pictures import picture
from tests.fixtures.sounds import PitchTranscriber, encoded, silence, tone, wav
from tests.unit.test_formats import broken


def read(path: Path, content: bytes) -> Record | BadRecord:
    path.write_bytes(content)
    (record,) = load.read([path])
    return record


def pitch(samples: Any) -> float:
    """Return the loudest pitch of a sound, in hertz."""
    assert (samples.dtype, samples.ndim) == (np.int16, 1)
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLING_RATE / len(samples))


FILES: dict[str, bytes] = {
    "a.wav": wav(tone("middle")),
    "stereo.wav": wav(np.repeat(tone("middle"), 2), channels=2),
    "fast.wav": wav(tone("middle", rate=48_000), 48_000),
    "a.flac": encoded(tone("middle"), "flac", "flac"),
    "a.mp3": encoded(tone("middle"), "mp3", "libmp3lame", 44_100),
    "a.m4a": encoded(tone("middle"), "ipod", "aac", 44_100),
    "a.opus": encoded(tone("middle"), "ogg", "libopus", 48_000),
    "a.aiff": encoded(tone("middle"), "aiff", "pcm_s16be"),
    "wrong.mp3": wav(tone("middle")),
    "none": wav(tone("middle")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_sound_is_read_whatever_it_is(tmp_path: Path, name: str) -> None:
    record = read(tmp_path / name, FILES[name])
    assert isinstance(record, Record), record
    assert isinstance(record.data, np.ndarray)
    assert pitch(record.data) == pytest.approx(880, abs=3)
    assert len(record.data) == pytest.approx(SAMPLING_RATE, rel=0.15)
    assert (record.modality, record.content, record.title) == (Modality.AUDIO, "", name)
    assert record.metadata["duration"] == pytest.approx(1, rel=0.15)


def test_what_a_file_says_of_itself_is_metadata(tmp_path: Path) -> None:
    tags = {"title": "A note", "artist": "Ada", "album": "Notes " * 100, "date": "2024-05-06"}
    record = read(tmp_path / "a.mp3", encoded(tone(), "mp3", "libmp3lame", 44_100, **tags))
    assert isinstance(record, Record)
    assert record.title == "A note"
    assert record.metadata.items() >= {"author": "Ada", "created": "2024-05-06"}.items()
    assert len(record.metadata["album"]) <= 200


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"an ordinary text", "no sound of a known kind"),
        (PLAYLIST, "no sound of a known kind"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "no sound of a known kind"),
        (
            b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n",
            "no sound of a known kind",
        ),
        (encoded_picture(picture()), "no sound of a known kind"),
        (wav(np.zeros(0, dtype=np.int16)), "it has no s"),
    ],
)
def test_what_is_no_sound_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    record = read(tmp_path / "a.mp3", content)
    assert isinstance(record, BadRecord)
    assert re.search(reason, record.reason), record.reason


def test_sounds_that_were_joined_are_one(tmp_path: Path) -> None:
    parts = [encoded(tone("middle"), "mp3", "libmp3lame", rate) for rate in (44_100, 22_050)]
    record = read(tmp_path / "a.mp3", b"".join(parts))
    assert isinstance(record, Record), record
    assert isinstance(record.data, np.ndarray)
    assert len(record.data) == pytest.approx(2 * SAMPLING_RATE, rel=0.15)
    assert pitch(record.data) == pytest.approx(880, abs=3)


def test_a_sound_that_is_too_long_is_refused(tmp_path: Path) -> None:
    hours = wav(np.zeros(8_000 * 3600 * 3, dtype=np.int16), 8_000)
    record = read(tmp_path / "a.wav", hours)
    assert isinstance(record, BadRecord)
    assert "longer than 2 hours" in record.reason


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.opus"])
def test_broken_sounds_stop_nothing(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    for number in range(40):
        (tmp_path / f"{number:03d}.mp3").write_bytes(broken(FILES[name], chance))
    (tmp_path / "whole.mp3").write_bytes(FILES[name])
    read_all = list(load.read([tmp_path]))
    assert len(read_all) == 41
    assert isinstance(read_all[-1], Record)
    assert all(record.reason for record in read_all if isinstance(record, BadRecord))


def test_a_question_may_be_a_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone("middle")))
    waves = tone("middle").astype(np.float32) / 2**15
    questions: list[Any] = [
        path,
        path.read_bytes(),
        {"array": waves, "sampling_rate": SAMPLING_RATE},
        {"array": np.stack([waves, waves]), "sampling_rate": np.int64(SAMPLING_RATE)},
        {"array": np.stack([waves, waves], axis=1), "sampling_rate": float(SAMPLING_RATE)},
        {"array": waves.astype(np.float64).tolist(), "sampling_rate": SAMPLING_RATE},
        {"array": tone("middle"), "sampling_rate": SAMPLING_RATE},
    ]
    read_all = [read_question(question) for question in questions]
    assert all(isinstance(each, Media) and each.modality is Modality.AUDIO for each in read_all)
    assert len({each.data.tobytes() for each in read_all}) == 1
    fast = read_question({"array": tone("middle", rate=48_000), "sampling_rate": 48_000})
    assert pitch(fast.data) == pytest.approx(880, abs=1)
    assert len(fast.data) == SAMPLING_RATE
    for name in ("a.flac", "a.mp3", "a.opus", "a.m4a", "a.aiff"):
        assert read_question(FILES[name]).modality is Modality.AUDIO, name


@pytest.mark.parametrize(
    ("array", "rate", "said"),
    [
        (np.zeros(0), 16_000, r"shape \(0,\)"),
        (np.zeros((2, 2, 2)), 16_000, r"shape \(2, 2, 2\)"),
        (["a"], 16_000, r"is an array of <U1, shape \(1,\); expected floats from -1 to 1, or int16"),
        ([[0.1], [0.1, 0.2]], 16_000, "the sound is no array"),
        (np.zeros(5, dtype=np.int32), 16_000, "array of int32"),
        ([1000, -2000], 16_000, "array of int64"),
        (np.zeros((40, 40)), 16_000, r"shape \(40, 40\)"),
        (np.zeros((0, 5)), 16_000, r"shape \(0, 5\)"),
        (np.zeros(5), 16_000.5, "sampling_rate is 16000.5"),
        (np.zeros(5), 0, "sampling_rate is 0, expected a whole number of hertz, 1,000 to 399,999"),
        (np.zeros(5), True, "sampling_rate is True"),
    ],
)
def test_an_array_that_is_no_sound_is_refused(array: Any, rate: Any, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        read_question({"array": array, "sampling_rate": rate})


def test_samples_beyond_the_range_are_clipped() -> None:
    read = read_question({"array": np.array([2.0, -2.0, np.nan, 0.5]), "sampling_rate": SAMPLING_RATE})
    assert read.data.tolist() == [32_767, -32_768, 0, 16_384]


class Ears:
    """An encoder that hears a second at a time."""

    name, modalities, max_seconds = "ears", frozenset({Modality.AUDIO}), 1.0


@pytest.mark.parametrize(
    ("seconds", "places"),
    [
        (0.5, [[0, 0.5]]),
        (1.0, [[0, 1]]),
        (1.2, [[0, 1], [0.2, 1.2]]),
        (2.0, [[0, 1], [0.5, 1.5], [1, 2]]),
        (2.3, [[0, 1], [0.5, 1.5], [1, 2], [1.3, 2.3]]),
    ],
)
def test_a_sound_is_cut_where_the_encoder_ends_to_hear(seconds: float, places: list[list[float]]) -> None:
    ears: Any = Ears()
    noise = np.random.default_rng(0).integers(-9, 9, round(seconds * SAMPLING_RATE), dtype=np.int16)
    chunks = cut(Content(Modality.AUDIO, noise), ears, Lengths(10, 0))
    assert [chunk.locator["seconds"] for chunk in chunks] == places
    assert len({chunk.hash for chunk in chunks}) == len(chunks)


def test_a_transcript_is_cut_as_a_text_that_knows_its_seconds() -> None:
    words = "First we meet.\nThen we talk for long.\nAt last we go home."
    seconds = [[0.0, 2.0], [2.5, 6.0], [7.0, 9.5]]
    content = Content(Modality.TEXT, words, "a talk", seconds=seconds)
    encoder = encoders.get("hash")
    assert [chunk.locator["seconds"] for chunk in cut(content, encoder, Lengths(60, 0))] == [[0, 9.5]]
    chunks = cut(content, encoder, Lengths(9, 0))
    assert [chunk.locator["seconds"] for chunk in chunks] == seconds
    assert [chunk.text.strip() for chunk in chunks] == words.split("\n")
    other = Content(Modality.TEXT, f"{words}\nA line more.", "a talk", seconds=seconds)
    assert all("seconds" not in chunk.locator for chunk in cut(other, encoder, Lengths(9, 0)))


ODD: list[Any] = [[[True, True]], [[-5, -1]], [[5, 1]], [[0, 10**400]], [[0, float("nan")]]]


@pytest.mark.parametrize("value", [None, 7, "7", [7], [[1, 2], 3], [["a", "b"]], [[1, 2, 3]], {"0": 1}, *ODD])
def test_metadata_that_says_no_seconds_says_none(value: Any) -> None:
    assert seconds_of(value) == ()


def test_a_clap_model_is_read_by_its_modalities(tiny_clap: Path) -> None:
    clap = encoders.get(tiny_clap)
    assert clap.modalities == {Modality.TEXT, Modality.AUDIO}
    assert (clap.dimensions, clap.max_tokens, getattr(clap, "max_seconds", None)) == (12, 38, 2.0)
    items: list[EncoderInput] = ["a fox", tone("low"), "an owl", tone("high")]
    mixed = clap.encode_documents(items)
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    for item, vector in zip(items, mixed, strict=True):
        assert np.allclose(clap.encode_query(item), vector, atol=1e-5)
    assert not np.allclose(mixed[1], mixed[3], atol=1e-2)


def test_a_long_question_is_heard_in_pieces_as_documents_are(tiny_clap: Path) -> None:
    clap, asked = encoders.get(tiny_clap), Media(Modality.AUDIO, np.concatenate([tone("low", 4), tone("high", 4)]))
    index = Indexed(VectorIndex(), Storage.VECTOR, Distance.COSINE, clap.dimensions)
    vectors = [vector_of(asked, lambda: clap, index, "it") for _ in range(3)]
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)


def test_openwakeword_hears_what_is_alike_wherever_it_is() -> None:
    ears = encoders.get("openwakeword")
    assert ears.modalities == {Modality.AUDIO}
    assert ears.dimensions == 96
    sounds: list[EncoderInput] = [tone("low", 0.3), tone("low", 0.3)[::-1].copy(), tone("high", 0.3), tone("low", 9)]
    vectors = ears.encode_documents(sounds)
    assert vectors.shape == (4, 96)
    assert np.allclose(vectors[0], ears.encode_query(sounds[0]))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert ears.encode_documents([]).shape == (0, 96)
    with pytest.raises(TypeError, match="expected an array"):
        ears.encode_documents(["a text"])


def test_what_was_heard_once_is_not_heard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ears = PitchTranscriber()
    sound = wav(np.concatenate([tone("low"), silence(1), tone("high")]))
    first, again = transcribers.transcribe(sound, ears), transcribers.transcribe(sound, ears)
    assert (first.text, first.seconds, first.language) == ("a low note.\na high note.", [[0, 1], [2, 3]], "en")
    assert (first, ears.heard) == (again, 1)
    (kept,) = (tmp_path / "pgneural" / "transcripts").iterdir()
    assert (kept.parent.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)
    kept.write_text("{broken")
    assert (transcribers.transcribe(sound, ears), ears.heard) == (first, 2)
    ears.revision = "2"
    transcribers.transcribe(sound, ears)
    assert ears.heard == 3


def test_what_a_transcriber_returns_is_kept_whatever_its_numbers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line: Any = (np.float32(0.5), np.float32(1.25), " two\nlines ")
    monkeypatch.setattr(PitchTranscriber, "transcribe", lambda *_: Transcript.of([line]))
    assert transcribers.transcribe(wav(tone()), PitchTranscriber()).lines == [(0.5, 1.25, "two lines")]
    monkeypatch.setattr(os, "replace", _full)
    assert transcribers.transcribe(wav(tone("high")), PitchTranscriber()).text == "two lines"
    assert [path.suffix for path in (tmp_path / "pgneural" / "transcripts").iterdir()] == [".json"]


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_no_transcriber_or_no_sound_is_refused(tmp_path: Path, tiny_dino: Path) -> None:
    assert "whisper-tiny.en" in transcribers.available()
    with pytest.raises(UnknownEncoder, match=r"no transcriber 'whisper'; registered are whisper-tiny\.en"):
        transcribers.get("whisper")
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        transcribers.get(tiny_dino)
    no_transcriber: Any = 5
    with pytest.raises(UnknownEncoder, match="give a name, a folder, or what has a method transcribe"):
        transcribers.get(no_transcriber)
    with pytest.raises(UnpermittedModel, match="which is not registered here"):
        transcribers.again(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"nothing")
    with pytest.raises(EncoderUnavailable, match="give a folder with a Whisper model"):
        transcribers.get(tmp_path)
    with pytest.raises(InvalidQuery, match="what is to be transcribed is image"):
        transcribers.transcribe(encoded_picture(picture()), PitchTranscriber())
    with pytest.raises(InvalidQuery, match="is str"):
        transcribers.transcribe("a text", PitchTranscriber())


def test_a_model_of_transformers_transcribes(tiny_wav2vec: Path) -> None:
    heard = transcribers.get(tiny_wav2vec).transcribe(np.concatenate([tone("low"), tone("high")]))
    assert isinstance(heard, Transcript)
    assert all(0 <= line.start <= line.end <= 2 for line in heard.lines)
    assert isinstance(transcribers.get(tiny_wav2vec).transcribe(tone()[:3]), Transcript)  # three samples
    assert set(heard.text) <= set("abcdefghijklmnopqrstuvwxyz <>/\n")


@pytest.mark.model
def test_whisper_hears_nothing_where_nobody_speaks() -> None:
    whisper = transcribers.get()
    assert whisper is transcribers.get()
    assert whisper.transcribe(np.concatenate([silence(2), tone("low", 2)])).lines == []
