"""From what a caller writes to what a search is: checked, with the defaults filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import operators, visitors

from pgneural import transcribers
from pgneural.amounts import number, whole
from pgneural.chunkers import sound_pieces
from pgneural.errors import (
    DimensionMismatch,
    EncoderUnavailable,
    InvalidQuery,
    MissingExtra,
    UnpermittedModel,
    UnsupportedContent,
)
from pgneural.filter import Expression, Filter, condition, expression, settled
from pgneural.load import read_question
from pgneural.printable import warn
from pgneural.rerank import LateInteraction, Rerank, Reranker
from pgneural.search import Refinement
from pgneural.statement import LEXICAL, Aggregate, Boost, Fusion, Page, Query, Threshold
from pgneural.store.vectors import Indexed
from pgneural.transcribers import Transcriber
from pgneural.transcribers.question import in_words
from pgneural.types import Encoder, Media, Modality, Mode, Pixels, Vector

if TYPE_CHECKING:
    from PIL.Image import Image

QueryInput: TypeAlias = "str | Vector | Sequence[float] | Media | Pixels | Image | Path | bytes | Mapping[Any, Any]"
Boosts: TypeAlias = "Sequence[Boost] | Mapping[str, float]"

MAX_LIMIT = 1_000_000
"""Beyond this, read the documents with a statement of your own."""


LONGEST_QUERY = 8192
"""Characters of a query whose words are looked up, as in `neural.lexical_query`: some pages."""

MAX_PATIENCE = 3600.0
"""Seconds; who has more time polls ``neural.status``."""


class SearchOptions(TypedDict, total=False):
    """What `Collection.search` takes besides the query; it says there what each is."""

    where: Filter | None
    limit: int
    offset: int
    mode: Mode | str | None
    fusion: Fusion | None
    boosts: Boosts | None
    aggregate: str
    max_distance: float | None
    min_score: float | None
    rerank: Rerank | Reranker | LateInteraction | str | Path | None
    inputs: Mapping[str, QueryInput] | None
    diversity: float
    group_by: Expression | None
    per_group: int
    fresh: Literal["any", "require"]
    patience: float


PATIENCE_SECONDS = 5.0
"""For so long a search that wants fresh results waits for them, if nothing else is said."""


def patience_of(options: SearchOptions) -> float | None:
    """Return for how many seconds a search waits for rows to be encoded; None where it takes any results.

    Raises:
        InvalidQuery: An option is out of range.
    """
    fresh, patience = options.get("fresh", "any"), options.get("patience", PATIENCE_SECONDS)
    if fresh not in ("any", "require"):
        raise InvalidQuery(f"fresh is {fresh!r}, expected any or require")
    if not 0 <= (seconds := number("patience", patience)) <= MAX_PATIENCE:
        raise InvalidQuery(f"patience is {patience}, expected 0 to {MAX_PATIENCE} seconds")
    return seconds if fresh == "require" else None


def query_of(query: QueryInput, options: SearchOptions) -> Query:
    """Return a query without its vectors.

    Raises:
        InvalidQuery: An option is out of range, or does not go with the others.
    """
    if unknown := sorted(options.keys() - SearchOptions.__annotations__.keys()):
        raise InvalidQuery(f"search has no option {unknown[0]!r}; it has {', '.join(SearchOptions.__annotations__)}")
    inputs = inputs_of(options)
    mode, aggregate = _mode(options.get("mode"), query, inputs), Aggregate.parse(options.get("aggregate") or "max")
    threshold = threshold_of(options)
    _require_fitting(mode, aggregate, threshold, options)
    text, words = text_of(query), text_of(inputs.get(LEXICAL, query))
    worded = mode in (Mode.LEXICAL, Mode.HYBRID)
    return Query(
        mode,
        page_of(options.get("limit", 10), options.get("offset", 0)),
        {LEXICAL: _shortened(words)} if worded and words is not None else {},
        text if text is not None else words,
        where=with_arrays(condition(options.get("where"))),
        fusion=options.get("fusion"),
        boosts=_boosts(options.get("boosts") or ()),
        threshold=threshold,
        aggregate=aggregate,
    )


def _read(leg: str, value: QueryInput, transcriber: Callable[[], Transcriber]) -> QueryInput:
    """Return what a leg is asked; of words, what is spoken in a sound."""
    question: QueryInput = read_question(value)
    return in_words(question, lambda _: False, transcriber) if leg == LEXICAL else question


def inputs_of(
    options: SearchOptions, transcriber: Callable[[], Transcriber] = transcribers.get
) -> Mapping[str, QueryInput]:
    """Return what single legs are asked instead of the query.

    Raises:
        InvalidQuery: It is no mapping, or the words are no text.
    """
    inputs = options.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        raise InvalidQuery(f"inputs is {inputs!r}, expected a mapping of the names of legs to texts or vectors")
    inputs = {leg: _read(leg, value, transcriber) for leg, value in inputs.items()}
    for value in inputs.values():
        text_of(value)
    if LEXICAL in inputs and text_of(inputs[LEXICAL]) is None:
        raise InvalidQuery(f"the input of leg {LEXICAL} is {inputs[LEXICAL]!r}, expected a text")
    return inputs


def require_legs(inputs: Mapping[str, QueryInput], query: Query) -> None:
    """Refuse what is asked of a leg that does not answer.

    Raises:
        InvalidQuery: There is such an input.
    """
    for leg in inputs:
        if leg not in query.inputs:
            has = ", ".join(query.inputs)
            raise InvalidQuery(f"inputs has {leg!r}, but the legs of this search in mode {query.mode} are {has}")


def _require_fitting(mode: Mode, aggregate: Aggregate, threshold: Threshold, options: SearchOptions) -> None:
    """Refuse options that would be ignored."""
    fusion = options.get("fusion")
    if fusion is not None and not isinstance(fusion, Fusion):
        raise InvalidQuery(f"fusion is {fusion!r}, expected a WeightedSum or an RRF")
    if fusion is not None and mode is not Mode.HYBRID and not options.get("boosts"):
        raise InvalidQuery(f"fusion joins legs, and mode {mode} has one; leave it out")
    if threshold.max_distance is not None and mode not in (Mode.SEMANTIC, Mode.HYBRID):
        raise InvalidQuery(f"mode {mode} has no distance; use min_score")
    if aggregate == Aggregate():
        return
    if mode not in (Mode.SEMANTIC, Mode.HYBRID):
        raise InvalidQuery(f"aggregate {aggregate.way} is of the semantic leg, which mode {mode} has not")
    if threshold != Threshold():
        raise InvalidQuery(f"a threshold is of the best chunk; with aggregate {aggregate.way} leave it out")


def page_of(limit: int, offset: int = 0) -> Page:
    """Return a page.

    Raises:
        InvalidQuery: One of the numbers is out of range.
    """
    return Page(whole("limit", limit, 1, MAX_LIMIT), whole("offset", offset, 0, MAX_LIMIT))


def threshold_of(options: SearchOptions) -> Threshold:
    """Return what a hit must reach.

    Raises:
        InvalidQuery: One of the numbers is none.
    """
    farthest, least = options.get("max_distance"), options.get("min_score")
    return Threshold(
        None if farthest is None else number("max_distance", farthest),
        None if least is None else number("min_score", least),
    )


def refinement_of(query: Query, options: SearchOptions) -> Refinement | None:
    """Return what is done to the hits of a query before the page is cut; None if nothing.

    Raises:
        InvalidQuery: An option is out of range, or does not go with the others.
    """
    rerank, by = options.get("rerank"), options.get("group_by")
    diversity = number("diversity", options.get("diversity", 0.0))
    if not 0 <= diversity <= 1:
        raise InvalidQuery(f"diversity is {diversity}, expected 0 to 1")
    per_group = whole("per_group", options.get("per_group", 1), 1)
    if rerank is None and not diversity and by is None:
        return None
    if query.page.offset:
        raise InvalidQuery("reranked, diverse and grouped hits have no pages; ask for more of them at once")
    if isinstance(rerank, Rerank | LateInteraction):
        rerank = replace(rerank, candidates=whole("candidates", rerank.candidates, 1))
    if rerank is not None and query.text is None:
        raise InvalidQuery("rerank needs a text, and the query is no text; leave one of them out")
    if rerank is not None and not isinstance(rerank, Rerank | LateInteraction):
        rerank = Rerank(rerank)
    grouped = None if by is None else settled(expression(by, "grouping"), "grouping")
    return Refinement(rerank, diversity, grouped, per_group)


def text_of(query: Any) -> str | None:
    """Return what the lexical leg reads: of weighted texts, those that are wanted."""
    for text in [query] if isinstance(query, str) else query if isinstance(query, Mapping) else ():
        if not isinstance(text, Media) and (not isinstance(text, str) or not text.strip()):
            raise InvalidQuery(f"the query is {text!r}, expected a text with at least a word")
    if isinstance(query, Mapping):
        weights = {term: number(f"the weight of {term!r}", weight) for term, weight in query.items()}
        texts = [term for term in weights if isinstance(term, str)]
        query = " ".join(text for text in texts if weights[text] > 0) if texts or not weights else None
    if not isinstance(query, str):
        return None
    if "\0" in query or (not query.isascii() and query.encode("utf-8", "ignore").decode() != query):
        raise InvalidQuery("the query has a NUL byte or half of a surrogate pair, which is no text; remove it")
    return query


LONG = 1000
"""A list of more values than this is sent as one array: a statement has 65,535 parameters at most."""


def with_arrays(where: sa.ColumnElement[bool] | None) -> sa.ColumnElement[bool] | None:
    """Return a condition in which each long list of ``in_`` is an array, one parameter whatever its length."""
    if not isinstance(where, sa.ColumnElement) or not any(map(_is_long, visitors.iterate(where))):
        return where
    changed: sa.ColumnElement[bool] = visitors.replacement_traverse(where, {}, _as_array)  # type: ignore[call-overload]
    return changed


def _is_long(part: object) -> bool:
    listed = part.right if isinstance(part, sa.BinaryExpression) else None
    return (
        isinstance(listed, sa.BindParameter)
        and listed.expanding
        and isinstance(listed.value, Sequence)
        and len(listed.value) > LONG
        and not isinstance(listed.type, sa.types.TupleType)
    )


def _as_array(part: Any, **_: Any) -> Any:
    if not _is_long(part) or part.operator not in (operators.in_op, operators.not_in_op):
        return None
    values = sa.bindparam(None, list(part.right.value), ARRAY(part.right.type), unique=True)
    return part.left == sa.any_(values) if part.operator is operators.in_op else part.left != sa.all_(values)


def _shortened(text: str) -> str:
    """Return what is read of a long query, with a warning."""
    if len(text) <= LONGEST_QUERY:
        return text
    warn(f"the query has {len(text):,} characters; its words are read from the first {LONGEST_QUERY:,}", stacklevel=2)
    return text[:LONGEST_QUERY]


def mode_of(name: Mode | str) -> Mode:
    """Return a mode by its name.

    Raises:
        InvalidQuery: There is none of this name.
    """
    if name not in tuple(Mode):
        raise InvalidQuery(f"mode is {name!r}, expected {', '.join(Mode)}")
    return Mode(name)


def _mode(mode: Mode | str | None, query: QueryInput, inputs: Mapping[str, QueryInput]) -> Mode:
    text = text_of(query) is not None or LEXICAL in inputs
    if mode is None:
        return Mode.HYBRID if text else Mode.SEMANTIC
    chosen = mode_of(mode)
    if not text and chosen is not Mode.SEMANTIC:
        raise InvalidQuery(f"mode {mode} needs a text, and the query is no text; search it with mode semantic")
    return chosen


def _boosts(boosts: Boosts) -> tuple[Boost, ...]:
    if isinstance(boosts, Mapping):
        boosts = [Boost(by, weight) for by, weight in boosts.items()]
    if not isinstance(boosts, Sequence) or not all(isinstance(boost, Boost) for boost in boosts):
        raise InvalidQuery(f"boosts is {boosts!r}, expected a list of Boost, or a mapping of expressions to weights")
    return tuple(boosts)


def with_vector(query: Query, leg: str, encode: Callable[[], Vector]) -> Query:
    """Return a query with the vector of a leg; a hybrid one goes on by words, with a warning, without a model.

    Raises:
        MissingExtra: What the model needs is not installed, and the query is nothing without a vector.
        UnsupportedContent: The encoder does not accept what is asked, and likewise.
    """
    try:
        return query.with_inputs(**{leg: encode()})
    except (MissingExtra, UnsupportedContent) as error:
        if query.mode is not Mode.HYBRID or query.threshold != Threshold() or query.aggregate != Aggregate():
            raise
        warn(f"the search goes on by words alone: {error}", stacklevel=2)
        return replace(query, mode=Mode.LEXICAL)


def with_vectors(
    query: Query,
    question: QueryInput,
    inputs: Mapping[str, QueryInput],
    semantic: Callable[[QueryInput], Vector],
    sparse: Callable[[str], Vector] | None,
) -> Query:
    """Return a query with what its legs compare.

    Args:
        query: Without vectors.
        question: What all legs are asked.
        inputs: What single legs are asked instead.
        semantic: Encodes for the semantic leg.
        sparse: Encodes for the sparse leg; None where there is none.

    Raises:
        InvalidQuery: Something is asked of a leg that does not answer.
        MissingExtra: As of `with_vector`.
    """
    if query.mode in (Mode.SEMANTIC, Mode.HYBRID):
        query = with_vector(query, "semantic", lambda: semantic(inputs.get("semantic", question)))
    if sparse is not None and query.mode in (Mode.SPARSE, Mode.HYBRID):
        query = _with_sparse(query, text_of(inputs.get("sparse", query.text or "")) or "", sparse)
    require_legs(inputs, query)
    return query


def _with_sparse(query: Query, text: str, encode: Callable[[str], Vector]) -> Query:
    """Return a query with the input of the sparse leg; a hybrid one goes on without it, with a warning."""
    try:
        return query.with_inputs(sparse=encode(text))
    except (MissingExtra, UnpermittedModel, EncoderUnavailable) as error:
        if query.mode is not Mode.HYBRID:
            raise
        warn(f"the search goes on without its sparse leg: {error}", stacklevel=3)
        return query


def vector_of(query: QueryInput, encoder: Callable[[], Encoder], indexed: Indexed, what: str) -> Vector:
    """Return the vector of a query, shape (d,): encoded, or checked where it was made elsewhere.

    Raises:
        DimensionMismatch: It has another length than the vectors that it is compared with.
        InvalidQuery: It has no direction, or there are no terms.
    """
    if isinstance(query, (str, Media)):
        return _encoded(encoder(), query)
    if not isinstance(query, Mapping):
        return checked(query, indexed, what)  # type: ignore[arg-type]
    if not query:
        raise InvalidQuery("the query has no terms; give texts, pictures or sounds with their weights")
    terms: Mapping[Any, float] = query
    weighted = [weight * _encoded(encoder(), term) for term, weight in terms.items()]
    return checked(np.sum(weighted, axis=0), indexed, what)


def _encoded(encoder: Encoder, term: str | Media) -> Vector:
    """Return the vector of a term, where the encoder accepts such."""
    modality, item = (Modality.TEXT, term) if isinstance(term, str) else (term.modality, term.data)
    if modality not in encoder.modalities:
        accepted = ", ".join(sorted(encoder.modalities))
        raise UnsupportedContent(
            f"{encoder.name} does not accept {modality}; ask by {accepted}, or use an encoder that does"
        )
    if modality is not Modality.AUDIO:
        return encoder.encode_query(item)
    pieces = sound_pieces(np.asarray(item), encoder)  # as documents are cut
    vectors = np.array([encoder.encode_query(piece.input) for piece in pieces])
    return vectors[0] if len(pieces) == 1 else np.mean(vectors, axis=0, dtype=np.float32)  # type: ignore[no-any-return]


def checked(values: Vector | Sequence[float], indexed: Indexed, what: str) -> Vector:
    """Return a vector that can be compared with those of a space; errors are those of `vector_of`."""
    vector = np.asarray(values, dtype=np.float32)
    if vector.shape != (indexed.dimensions,):
        raise DimensionMismatch(
            f"the query has shape {vector.shape}, but {what} has vectors of {indexed.dimensions} numbers; "
            "encode it with its encoder"
        )
    if problem := indexed.unfit(vector):
        raise InvalidQuery(f"the query vector {problem}; check how it was made")
    return vector
