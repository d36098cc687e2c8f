"""Results and manifests of bulk runs, for the tests of sinks."""

from collections.abc import Callable, Sequence
from hashlib import md5
from typing import Any

from reclane_worker.bulk.sinks import Manifest, Part, Result, Sink

AT = 1_800_000_000.5
VERSIONS = {"model": "hash:384", "catalog": "demo:1", "contract": 1}


def digest(key: str, model: str = "hash:384") -> str:
    """What tells a row's request and the model that answered it from any other."""
    return md5(f"{key} {model}".encode()).hexdigest()


def result(key: str, ids: Sequence[str] = ("i1", "i2"), model: str = "hash:384") -> Result:
    """An answer as it is stored in Redis."""
    items: list[dict[str, Any]] = [
        {"id": one, "rank": rank, "score": 1 / 2**rank, "title": f"T{rank}"}
        for rank, one in enumerate(ids, start=1)
    ]
    items[0]["fields"] = {"year": 1999}
    flags = [{"code": "needs_review", "reasons": ["short"]}]
    answer = {"items": items, "flags": flags, "versions": {**VERSIONS, "model": model}}
    return Result(key, answer, None, AT, digest(key, model))


def failed(key: str) -> Result:
    failure = {"code": "invalid_request", "message": "k: too large", "retry": False}
    return Result(key, None, failure, AT, digest(key))


def manifest(run: str, parts: Sequence[Part]) -> Manifest:
    rows = sum(part.rows for part in parts)
    return Manifest.model_validate(
        {
            "run": run,
            "parts": tuple(parts),
            "counts": {"rows": rows},
            "versions": (VERSIONS,),
            "started": AT,
            "finished": AT,
        }
    )


def see_unchanged(opened: Callable[[str], Sink]) -> None:
    """Of the rows that a sink shows, those of the same request and versions are unchanged."""
    first = opened("run-1")
    first.check()
    wanted = {key: digest(key) for key in ["same", "other model", "failed", "never asked"]}
    assert first.unchanged(wanted) == first.unchanged({}) == set()
    many = [f"{n}" for n in range(700)]
    rows = [result("same"), result("other model", model="old"), failed("failed")]
    first.complete(
        manifest("run-1", [first.write(0, rows), first.write(1, list(map(result, many)))])
    )
    for _ in range(2):
        assert opened("run-2").unchanged(wanted) == {"same"}
    assert opened("run-2").unchanged({"other model": digest("same")}) == set()
    wanted = {key: digest(key, "old" if key == "7" else "hash:384") for key in many}
    assert opened("run-2").unchanged(wanted) == {*many} - {"7"}
