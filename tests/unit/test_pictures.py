"""Pictures of every kind, and what is none: read as the networks want them, or refused by name."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pgneural import encoders, load
from pgneural.errors import InvalidQuery, TextTooLong, UnreadableInput
from pgneural.load import permitted_files, read_question
from pgneural.types import BadRecord, EncoderInput, Media, Modality, Record
from tests.fixtures.pictures import declared, encoded, picture
from tests.unit.test_formats import broken


def read(path: Path, content: bytes) -> Record | BadRecord:
    path.write_bytes(content)
    (record,) = load.read([path])
    return record


def corner(record: Record | BadRecord, at: tuple[int, int] = (3, 3)) -> tuple[int, ...]:
    """Return the colour of a pixel, and make sure that the record is of a picture."""
    assert isinstance(record, Record), record
    assert (record.modality, record.content) == (Modality.IMAGE, "")
    assert isinstance(record.data, np.ndarray)
    return tuple(record.data[at].tolist())


FILES: dict[str, bytes] = {
    "a.png": encoded(picture()),
    "a.jpg": encoded(picture(), "JPEG", quality=95),
    "a.gif": encoded(picture(), "GIF"),
    "a.webp": encoded(picture(), "WEBP", lossless=True),
    "a.bmp": encoded(picture(), "BMP"),
    "a.tiff": encoded(picture(), "TIFF"),
    "a.ppm": encoded(picture(), "PPM"),
    "palette.png": encoded(picture().quantize(8)),
    "cmyk.jpg": encoded(picture(mode="CMYK"), "JPEG", quality=95),
    "clear.png": encoded(picture(mode="RGBA")),
    "animated.gif": encoded(picture(), "GIF", save_all=True, append_images=[picture("blue"), picture("green")]),
    "wrong.jpg": encoded(picture()),
    "none": encoded(picture()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_read_whatever_it_is(tmp_path: Path, name: str) -> None:
    record = read(tmp_path / name, FILES[name])
    assert np.abs(np.subtract(corner(record), (220, 20, 20))).max() < 12
    assert corner(record, (38, 58)) > (250, 250, 250)
    assert isinstance(record, Record)
    assert isinstance(record.data, np.ndarray)
    assert record.data.shape == (40, 60, 3)
    assert record.metadata.items() >= {"width": 60, "height": 40}.items()
    assert record.title == name


def test_grey_transparent_and_deep_pictures(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert corner(read(tmp_path / "a.png", encoded(clear))) == (255, 255, 255)
    deep = Image.fromarray(np.array([[0, 30_000], [60_000, 60_000]], dtype=np.uint16))
    record = read(tmp_path / "b.png", encoded(deep))
    assert [corner(record, at)[0] for at in ((0, 0), (0, 1), (1, 0))] == [0, 127, 255]
    real = Image.fromarray(np.array([[-1.0, 0.0], [1.0, 1.0]], dtype=np.float32))
    assert corner(read(tmp_path / "c.tiff", encoded(real, "TIFF")), (0, 1))[0] == 127
    assert corner(read(tmp_path / "d.png", encoded(picture(mode="1")))) == (0, 0, 0)


def test_a_large_picture_is_made_small_and_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "A square of red"
    exif[0x0110] = "Camera 7"
    exif[0x0132] = "2024:05:06 07:08:09"
    content = encoded(picture(size=(3000, 2000)), "JPEG", exif=exif, quality=90)
    record = read(tmp_path / "a.jpg", content)
    assert isinstance(record, Record)
    assert isinstance(record.data, np.ndarray)
    assert record.data.shape == (512, 341, 3)
    assert record.data[10, 300, 0] > 200 > record.data[10, 300, 1]  # the corner is at the right now
    known = {"width": 3000, "height": 2000, "created": "2024-05-06", "camera": "Camera 7"}
    assert record.metadata.items() >= known.items()
    assert (record.content, record.title) == ("A square of red", "a.jpg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (declared(40_000, 40_000), "40,000 x 40,000 pixels, expected at most 200,000,000; make it smaller"),
        (declared(16_000, 12_000), "cannot be read"),
        (encoded(picture())[:60], "cannot be read: .*; is it what its name says?"),
        (b"an ordinary text", "no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known kind"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    record = read(tmp_path / "a.png", content)
    assert isinstance(record, BadRecord)
    assert re.search(reason, record.reason)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_broken_pictures_stop_nothing(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    chance, content = random.Random(kind), encoded(noise, kind)
    for number in range(40):
        (tmp_path / f"{number:03d}.png").write_bytes(broken(content, chance))
    (tmp_path / "whole.png").write_bytes(content)
    read_all = list(load.read([tmp_path]))
    assert len(read_all) == 41
    assert isinstance(read_all[-1], Record)
    assert all(record.reason for record in read_all if isinstance(record, BadRecord))


def test_a_question_may_be_a_picture_and_a_text_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(encoded(picture()))
    drawn = picture()
    questions = [path, path.read_bytes(), drawn, np.asarray(drawn)]
    read_all = [read_question(question) for question in questions]
    assert all(isinstance(each, Media) for each in read_all)
    assert len({each.data.tobytes() for each in read_all}) == 1
    assert read_question(str(path)) == str(path)
    assert read_question([1.0, 2.0]) == [1.0, 2.0]
    assert read_question(np.zeros((9, 9), dtype=np.uint8)).data.shape == (9, 9, 3)
    (tmp_path / "a.md").write_text("# Owls\n\nThey hunt.\n")
    assert read_question(tmp_path / "a.md") == "# Owls\n\nThey hunt.\n"
    weighted = read_question({path: 1, "at night": 0.5})
    assert [type(term) for term in weighted] == [Media, str]
    large = Image.new("RGB", (2000, 1000))
    ImageDraw.Draw(large).rectangle((0, 0, 9, 9))
    assert read_question(large).data.shape == (256, 512, 3)
    assert large.size == (2000, 1000)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Path("/nowhere/a.png"), "cannot be read"),
        (b"\0\1\2\3", "what is given as bytes: it is no picture of a known kind"),
        (b"\x89PNG\r\n\x1a\n", "it is no picture of a known kind"),
        (np.zeros((2, 2, 2)), r"an array of float64, shape \(2, 2, 2\)"),
        (np.zeros((0, 2, 3), dtype=np.uint8), r"shape \(0, 2, 3\)"),
    ],
)
def test_what_cannot_be_asked_is_refused(question: Any, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        read_question(question)


def test_a_clip_model_is_read_by_its_modalities(tiny_clip: Path, tmp_path: Path) -> None:
    clip = encoders.get(tiny_clip)
    assert clip.modalities == {Modality.TEXT, Modality.IMAGE, Modality.MESH}
    assert (clip.dimensions, clip.max_tokens, encoders.described(str(tiny_clip), {})[0]) == (12, 75, 12)
    items: list[EncoderInput] = ["a fox", np.asarray(picture()), "an owl"]
    mixed = clip.encode_documents(items)
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    for item, vector in zip(items, mixed, strict=True):
        assert np.allclose(clip.encode_query(item), vector, atol=1e-5)
    with pytest.raises(TextTooLong, match="reads 75"):
        clip.encode_documents(["fox " * 90])
    with pytest.warns(UserWarning, match="reads the first 75"):
        clip.encode_query("fox " * 90)
    with pytest.raises(TypeError, match="expected an array"):
        clip.encode_documents([b"bytes"])


def test_a_text_is_never_taken_for_the_file_that_it_names(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip, path = encoders.get(tiny_clip), Path("a.png")
    path.write_bytes(encoded(picture()))
    here, elsewhere = clip.encode_query(str(path)), clip.encode_query(np.asarray(picture()))
    assert not np.allclose(here, elsewhere, atol=0.1)
    path.unlink()
    assert np.array_equal(clip.encode_query(str(path)), here)
    assert clip.encode_query("https://example.org/a.png").shape == (12,)


def test_a_dino_model_takes_pictures_alone(tiny_dino: Path) -> None:
    dino = encoders.get(tiny_dino)
    assert dino.modalities == {Modality.IMAGE, Modality.MESH}
    assert (dino.dimensions, dino.max_tokens) == (16, None)
    assert dino.encode_documents([np.asarray(picture()), np.asarray(picture("blue"))]).shape == (2, 16)
    assert encoders.get(tiny_dino, dimensions=8).dimensions == 8


@pytest.mark.model
def test_photos_share_a_space_with_texts() -> None:
    conse, lite = encoders.get("conse"), encoders.get("efficientnet-lite0")
    listed = {info.name: info for info in encoders.available()}
    assert listed["conse"].modalities == ("text", "image")
    assert listed["efficientnet-lite0"].modalities == ("image", "mesh")
    assert (conse.dimensions, lite.dimensions) == (384, 1280)
    drawn = [np.asarray(picture(colour)) for colour in ("red", "red", "blue")]
    vectors = lite.encode_documents(drawn)
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    assert vectors[0] @ vectors[2] < 0.99
    mixed = conse.encode_documents(["a fox", drawn[0]])
    assert np.allclose(mixed[0], encoders.get("minilm").encode_documents(["a fox"])[0], atol=1e-3)
    assert np.allclose(mixed[1], conse.encode_query(drawn[1]), atol=1e-4)
    assert lite.encode_documents([]).shape == (0, 1280)


def test_siglip_pads_every_text_to_one_length(tiny_siglip: Path) -> None:
    siglip = encoders.get(tiny_siglip)
    alone = siglip.encode_query("a fox")
    assert np.allclose(
        siglip.encode_documents(["a fox", "the quick brown fox jumps over the lazy dog"])[0], alone, atol=1e-5
    )
    assert siglip.modalities == {Modality.TEXT, Modality.IMAGE, Modality.MESH}
    assert siglip.encode_query(np.asarray(picture())).shape == alone.shape


def test_a_prompt_is_put_before_a_text_once(tiny_clip: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(
        str(tiny_clip), device="cpu", prompts={"query": "find ", "document": "doc "}, default_prompt_name="query"
    ).save(str(tmp_path))
    plain, prompted = encoders.get(tiny_clip), encoders.get(tmp_path)
    assert np.allclose(prompted.encode_query("a fox"), plain.encode_query("find a fox"), atol=1e-5)
    assert np.allclose(prompted.encode_documents(["a fox"])[0], plain.encode_query("doc a fox"), atol=1e-5)


def test_a_picture_of_the_caller_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(size=(3000, 2000)), "JPEG"))
    with Image.open(path) as image:
        assert read_question(image).data.shape == (341, 512, 3)
        assert image.size == (3000, 2000)
    with pytest.raises(InvalidQuery, match="has 0 x 5 pixels"):
        read_question(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO"])
def test_a_picture_is_known_by_how_it_begins(kind: str) -> None:
    assert isinstance(read_question(encoded(picture(), kind)), Media)


def test_what_a_picture_says_of_itself_has_bounds(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x010F] = "x" * 1_000_000, "y" * 100_000
    record = read(tmp_path / "a.tiff", encoded(picture(), "TIFF", exif=exif))
    assert isinstance(record, Record)
    assert (len(record.content), len(record.metadata["camera"])) == (10_000, 200)
    from PIL import PngImagePlugin

    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "z" * 3_000_000, zip=True)
    assert isinstance(read(tmp_path / "b.png", encoded(picture(), pnginfo=told)), Record)
    big_endian = Image.fromarray(np.array([[0, 60_000]], dtype=">u2").astype(np.uint16))
    assert isinstance(read(tmp_path / "c.tiff", encoded(big_endian, "TIFF")), Record)


def test_files_of_one_text_add_their_weights(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("an owl")
    assert read_question({tmp_path / "a.txt": 1.0, tmp_path / "b.txt": 0.5}) == {"an owl": 1.5}
    (tmp_path / "c.txt.gz").write_bytes(b"\x1f\x8b\x08\x00broken beyond words")
    with pytest.raises(InvalidQuery, match="cannot be read"):
        read_question(tmp_path / "c.txt.gz")


def test_folders_that_are_permitted_have_names(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="is empty"):
        permitted_files.permit_files("")
