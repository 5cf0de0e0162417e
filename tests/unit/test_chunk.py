"""Chunks: nothing is lost, nothing is too long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pgneural.chunk import chunk, chunk_spans
from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.types import Content, Modality, Record

TOKENIZER = WordTokenizer()
TEXTS = st.text(alphabet=st.sampled_from("ab .!?。\n\t#-ü疫1"), max_size=400)


@given(TEXTS, st.integers(1, 40), st.integers(0, 40))
@settings(max_examples=300)
def test_spans_rebuild_the_text_and_fit(text: str, max_tokens: int, overlap: int) -> None:
    spans = chunk_spans(text, TOKENIZER, max_tokens=max_tokens, overlap=overlap)
    rebuilt = ""
    for start, stop in spans:
        assert start <= len(rebuilt) < stop or text == ""
        rebuilt += text[len(rebuilt) : stop]
    assert rebuilt == text
    assert all(count <= max_tokens for count in TOKENIZER.counts([text[a:b] for a, b in spans]))


@given(TEXTS, st.integers(4, 40))
def test_heading_counts_towards_the_limit(text: str, max_tokens: int) -> None:
    record = Record("1", text, title="fox")
    for piece in chunk(record.body, TOKENIZER, max_tokens=max_tokens, overlap=2):
        assert TOKENIZER.counts([str(piece.input)])[0] <= max_tokens


def test_cuts_at_sentences_and_shares_whole_ones() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    spans = chunk_spans(text, TOKENIZER, max_tokens=8, overlap=4)
    assert [text[a:b].strip() for a, b in spans] == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten eleven twelve.",
    ]


def test_short_title_heads_every_chunk() -> None:
    pieces = chunk(Record("1", "one two. " * 20, title="Fox").body, TOKENIZER, max_tokens=12, overlap=0)
    assert len(pieces) > 2
    assert all(str(piece.input).startswith("Fox\n") and not piece.text.startswith("Fox") for piece in pieces)


def test_long_title_becomes_chunks_of_its_own() -> None:
    record = Record("1", "body", title="a very long title of nine words in all")
    pieces = chunk(record.body, TOKENIZER, max_tokens=8, overlap=0)
    assert "".join(piece.text for piece in pieces if "title" in piece.locator) == record.title
    assert [piece.text for piece in pieces if "content" in piece.locator] == ["body"]


def test_title_alone_is_one_chunk() -> None:
    (piece,) = chunk(Record("1", "", title="Only a title").body, TOKENIZER, max_tokens=8, overlap=0)
    assert piece.input == "Only a title"
    assert piece.locator == {"title": [0, 12]}


def test_hash_changes_with_heading_and_text() -> None:
    hashes = {
        chunk(Record("1", text, title=title).body, TOKENIZER, max_tokens=8, overlap=0)[0].hash
        for text in ("a", "b")
        for title in ("", "t")
    }
    assert len(hashes) == 4


def test_long_runs_of_one_character_take_no_time() -> None:
    for text in ("." * 1_000_000, "\n" * 1_000_000, " " * 1_000_000, "a" * 1_000_000, ".\n " * 300_000):
        spans = chunk_spans(text, TOKENIZER, max_tokens=1_000_000, overlap=0)
        assert spans[-1][1] == len(text)
    chunk_spans("." * 200_000, TOKENIZER, max_tokens=100, overlap=10)


def test_pages_are_cut_each_for_itself_and_too_many_are_none() -> None:
    text = "One page.\f\fThe third page."
    content = Content(Modality.TEXT, text, "Title")
    found = chunk(content, TOKENIZER, max_tokens=100, overlap=10)
    assert [(text[slice(*each.locator["content"])], each.locator["page"]) for each in found] == [
        ("One page.", 1),
        ("The third page.", 3),
    ]
    many = Content(Modality.TEXT, "a\f" * 20_000)
    assert all("page" not in each.locator for each in chunk(many, TOKENIZER, max_tokens=100, overlap=0))
