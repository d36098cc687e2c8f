"""The contract: what a request may say and what an answer says, versioned and strict.

Both sides validate with these models: the client before anything is enqueued, the worker
before anything runs. Changes are additive; the golden files in tests/ hold the promise.
"""

from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from reclane.errors import InvalidRequest

VERSION: Final = 1
ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_QUERY_BYTES: Final = 16_384
MAX_ID_CHARS: Final = 256
MAX_HISTORY: Final = 1_000
MAX_WEIGHT: Final = 1e6
MAX_K: Final = 500
MAX_OFFSET: Final = 10_000
MAX_IDS: Final = 10_000  # exclude, candidates
MAX_FILTERS: Final = 32
MAX_FILTER_VALUES: Final = 1_000
MAX_FIELDS: Final = 64
MAX_CONSTRAINTS: Final = 64
MAX_SAID_CHARS: Final = 1_024
MAX_SIMILAR: Final = 64  # items that others shall be like
MAX_REQUEST_BYTES: Final = 262_144
MAX_CHUNK: Final = 500  # requests in one message
MAX_CHUNK_ITEMS: Final = 20_000  # their k together: some 3.5 MB of answers

DELIVERY_FIELDS: Final = frozenset({"deadline_s", "idempotency_key"})
"""Fields that say how an answer is delivered, not what it says. Requests that are equal in all
others share one computation: a new field counts as changing the answer unless it stands here."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
Scalar = bool | int | float | Annotated[str, StringConstraints(max_length=1_024)]


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
    )


class Eq(_Model):
    """The attribute equals `eq`; an attribute that is a list contains it."""

    eq: Scalar


class In(_Model):
    """The attribute, or one element of it, is one of `in`."""

    in_: tuple[Scalar, ...] = Field(
        alias="in", min_length=1, max_length=MAX_FILTER_VALUES, strict=False
    )


class AnyOf(_Model):
    """The list attribute shares at least one element with `any_of`."""

    any_of: tuple[Scalar, ...] = Field(min_length=1, max_length=MAX_FILTER_VALUES, strict=False)


class Range(_Model):
    """The numeric attribute lies within the bounds given; an item without it does not."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @model_validator(mode="after")
    def _has_bound(self) -> Self:
        if self.gt is None and self.gte is None and self.lt is None and self.lte is None:
            raise ValueError("a range needs at least one of gt, gte, lt, lte")
        return self


def _expand_shorthand(value: Any) -> Any:
    """`{"year": 1999}` means eq, `{"genre": ["a", "b"]}` means in."""
    if isinstance(value, str | int | float):
        return {"eq": value}
    if isinstance(value, list | tuple):
        return {"in": value}
    return value


Filter = Annotated[Eq | In | AnyOf | Range, BeforeValidator(_expand_shorthand)]
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
WeightedId = Annotated[tuple[Id, Weight], Field(strict=False)]


class Constraint(_Model):
    """A wish: of an item's `attributes` one passes `condition`, or none does, with `unless`.

    Items that miss a hard one are left out, those that meet a soft one come first. `said` is what
    the request says of it.
    """

    attributes: tuple[Name, ...] = Field(min_length=1, max_length=MAX_FIELDS, strict=False)
    condition: Filter
    unless: bool = False
    hard: bool = True
    said: Annotated[str, StringConstraints(max_length=MAX_SAID_CHARS)] = ""


class Understood(_Model):
    """What a request asks, as an answer's `intent` tells it; corrected, it may be sent back.

    `text` is compared with the items; None takes the query. At most `count` items are wanted, and
    such as are like those named in `similar`, which do not come back themselves. Nothing is read
    from the query then.
    """

    text: str | None = None
    count: int | None = Field(default=None, ge=1, le=MAX_K)
    similar: tuple[Id, ...] = Field(default=(), max_length=MAX_SIMILAR, strict=False)
    constraints: tuple[Constraint, ...] = Field(
        default=(), max_length=MAX_CONSTRAINTS, strict=False
    )


class RecommendRequest(_Model):
    """One request: at least one of `query`, `history`, `user_id`.

    `history` is item ids, newest last, each optionally `[id, weight]`, below 0 if disliked.
    `candidates` limits
    the answer to these items. `diversity` is 0 (relevance only) to 1. `fields` names item
    attributes to return. `intent` is what to understand instead of reading the query for
    constraints: as an earlier answer told it, or corrected. `deadline_s` is seconds from now after
    which nobody waits.
    """

    v: Literal[1] = VERSION
    query: str | None = None
    history: tuple[Id | WeightedId, ...] = Field(default=(), max_length=MAX_HISTORY, strict=False)
    user_id: Id | None = None
    catalog: Name | None = None
    k: int = Field(default=10, ge=1, le=MAX_K)
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)
    candidates: tuple[Id, ...] | None = Field(
        default=None, min_length=1, max_length=MAX_IDS, strict=False
    )
    filters: dict[Name, Filter] = Field(default_factory=dict, max_length=MAX_FILTERS)
    exclude: tuple[Id, ...] = Field(default=(), max_length=MAX_IDS, strict=False)
    diversity: float = Field(default=0.0, ge=0.0, le=1.0)
    explain: bool = False
    context: dict[Name, Scalar] = Field(default_factory=dict, max_length=MAX_FIELDS)
    fields: tuple[Name, ...] = Field(default=(), max_length=MAX_FIELDS, strict=False)
    intent: Understood | None = None
    variant: Name | None = None
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    idempotency_key: Id | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.query and self.query.strip()) and not self.history and self.user_id is None:
            raise ValueError("give at least one of query, history, user_id")
        if self.query is not None and len(self.query.encode()) > MAX_QUERY_BYTES:
            raise ValueError(f"query is longer than {MAX_QUERY_BYTES} bytes; shorten it")
        return self


class Item(_Model):
    """One recommended item. `score` compares within one answer only; `rank` starts at 1."""

    id: str
    rank: int
    score: float
    title: str
    fields: dict[str, Any] = Field(default_factory=dict)


class Intent(_Model):
    """What was understood of the request: the text compared, constraints on attributes, how many
    items are wanted, where that is said, and the items they shall be like.

    `encoder_trust` is 0 to 1: how far the encoder can read the query's script. `history_used`
    counts history items that the catalog knows, `reranked` the candidates that a reranker looked
    at again.
    """

    text: str = ""
    encoder_trust: float = 1.0
    history_used: int = 0
    constraints: tuple[Constraint, ...] = Field(default=(), strict=False)
    count: int | None = None
    similar: tuple[str, ...] = Field(default=(), strict=False)
    reranked: int = 0


class Flag(_Model):
    """Something the caller should know about this answer, with its reasons.

    `nothing_fits`, `relaxed` (no item met all constraints: these gave way), `needs_review` (its
    items may be any), `no_explanation`, `cached` (computed for an earlier request), `rerank_cut`
    (time allowed fewer candidates to be reranked than are set).
    """

    code: str
    reasons: tuple[str, ...] = Field(default=(), strict=False)


class Versions(_Model):
    """What made the answer: model and its revision, catalog name and version, contract; and the
    worker's reranker, if it has one."""

    model: str
    catalog: str
    contract: int = VERSION
    reranker: str | None = None


class TimingMs(_Model):
    """Milliseconds in each stage; all but `queued` are those of the whole batch."""

    queued: float
    tokenise: float
    model: float
    rank: float
    rerank: float = 0.0


class Batch(_Model):
    """The device batch that the request ran in. `padded` counts padding too; equal requests run
    once and count once. An answer flagged `cached` names the batch it was computed in."""

    size: int
    tokens: int
    padded: int


class Recommendation(_Model):
    """The answer: items best first, and how they came about."""

    items: tuple[Item, ...] = Field(strict=False)
    intent: Intent = Field(default_factory=Intent)
    flags: tuple[Flag, ...] = Field(default=(), strict=False)
    versions: Versions
    timing_ms: TimingMs
    batch: Batch
    variant: str | None = None


class Failure(_Model):
    """A failure is data too: a stable code, what to do, whether a retry may help."""

    code: str
    message: str
    retry: bool = False


class ManyAnswers(_Model):
    """The answer to a chunk: an answer or a failure for each request, in their order."""

    answers: tuple[Recommendation | Failure, ...] = Field(strict=False)


_SHOWN_CHARS: Final = 100


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARS else "(long name)"


def parse_request(data: Any) -> RecommendRequest:
    """Validate a plain dict, or return a request as it is.

    Raises:
        InvalidRequest: naming every field that is wrong, never quoting its content.
    """
    return validated(RecommendRequest, data)


def validated(model: type[ModelT], data: Any) -> ModelT:
    """Plain data as the model, or a model as it is.

    Raises:
        InvalidRequest: naming every field that is wrong, never quoting its content.
    """
    if isinstance(data, model):
        return data
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest(explain_validation(error)) from None


def parse_chunk(data: Any) -> list[RecommendRequest | Failure]:
    """The requests of a chunk; one that is wrong becomes a failure and leaves the others alone.

    Raises:
        InvalidRequest: it is no list of 1 to MAX_CHUNK requests, or they ask for more than
            MAX_CHUNK_ITEMS items together.
    """
    if not isinstance(data, list | tuple) or not 1 <= len(data) <= MAX_CHUNK:
        raise InvalidRequest(f"requests: give a list of 1 to {MAX_CHUNK}; split longer ones")
    chunk = [_part(one) for one in data]
    items = sum(one.k for one in chunk if isinstance(one, RecommendRequest))
    if items > MAX_CHUNK_ITEMS:
        raise InvalidRequest(
            f"requests: they ask for {items} items together, limit {MAX_CHUNK_ITEMS}; "
            "lower k or split the chunk"
        )
    return chunk


def _part(data: Any) -> RecommendRequest | Failure:
    try:
        request = parse_request(data)
    except InvalidRequest as error:
        return Failure(code=error.code, message=str(error))
    if request.deadline_s is not None or request.idempotency_key is not None:
        text = "deadline_s, idempotency_key: a chunk ends as a whole; set expires on its message"
        return Failure(code=InvalidRequest.code, message=text)
    return request


def explain_validation(error: ValidationError) -> str:
    """The field and the reason of each problem, without the input: it may be private."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(_shown(str(part)) for part in problem["loc"][:6]) or "request"
        problems.append(f"{where}: {problem['msg'].removeprefix('Value error, ')[:_SHOWN_CHARS]}")
    return "; ".join(problems[:10])
