"""Which version of each catalog workers shall serve: publish one, go back, see who serves it.

What is published is a field of one hash in Redis, by the catalog's name. Workers hear that it has
changed, load the new version beside the old one and tell what came of it (`following.py` there).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from reclane import _scripts, names
from reclane.errors import CatalogError, NotPublished
from reclane.probe import read_statistics

MAX_EARLIER: Final = 10
_TRIES: Final = 20
_NAME: Final = re.compile(r"[^/=,\s]{1,200}")  # as RECLANE_CATALOG can spell it
_PUBLISH: Final = _scripts.load("reclane/catalog_publish", allow_oom=True)

State: TypeAlias = Literal["serves", "refused", "loading"]


class Publication(BaseModel):
    """A version and where workers find it; `at` is seconds since the epoch, by Redis's clock."""

    model_config = ConfigDict(frozen=True)

    folder: str
    version: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    at: float


class Published(BaseModel):
    """What workers shall serve under one name, and what they should before, the newest first."""

    model_config = ConfigDict(frozen=True)

    now: Publication
    earlier: tuple[Publication, ...] = ()

    def follow(self, new: Publication) -> "Published":
        """With a newer publication in its place. One of the same version is no step to go back."""
        same = new.version == self.now.version
        earlier = self.earlier if same else (self.now, *self.earlier)
        return Published(now=new, earlier=earlier[:MAX_EARLIER])


@dataclass(frozen=True, slots=True)
class Follower:
    """A worker that has a catalog of the name, what it did about a publication, and why not."""

    worker: str
    state: State
    why: str = ""


def publish(client: Any, keys: names.Keys, name: str, folder: str, version: str) -> Published:
    """Have workers serve a version that they find in `folder`; returns at once.

    Raises:
        CatalogError: the name cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise CatalogError(f"{name!r} cannot be a catalog's name; give it another with --name")

    def decide(before: Published | None) -> Published:
        new = Publication(folder=folder, version=version, at=_now(client))
        return before.follow(new) if before else Published(now=new)

    return _change(client, keys, name, decide)


def rollback(client: Any, keys: names.Keys, name: str) -> Published:
    """Have workers serve what they served before; again, and it is what was before that.

    Raises:
        NotPublished: nothing is published, or nothing was before.
    """

    def decide(before: Published | None) -> Published:
        if before is None:
            raise NotPublished(f"nothing is published as {name!r}; see: reclane catalog published")
        if not before.earlier:
            raise NotPublished(f"nothing was published as {name!r} before {before.now.version}")
        last, *rest = before.earlier
        again = Publication(folder=last.folder, version=last.version, at=_now(client))
        return Published(now=again, earlier=tuple(rest))

    return _change(client, keys, name, decide)


def published(client: Any, keys: names.Keys) -> dict[str, Published]:
    """All that is published, by name; what cannot be read is left out."""
    found = client.hgetall(keys.catalogs)
    read = {name.decode("utf-8", "replace"): _read(stored) for name, stored in found.items()}
    return {name: one for name, one in sorted(read.items()) if one is not None}


def followers(
    client: Any, keys: names.Keys, name: str, wanted: Publication
) -> tuple[list[Follower], int]:
    """Workers that have a catalog of this name, as of their last renewal, and how many others
    live."""
    now_ms = _now(client) * 1e3
    leases = client.zrange(keys.leases, 0, -1, withscores=True)
    live = sorted(worker.decode() for worker, end_ms in leases if end_ms > now_ms)
    found, others = [], 0
    for worker in live:
        told = read_statistics(client.hget(keys.worker(worker), "stats"))
        follower = _judge(worker, told, name, wanted)
        if follower is None:
            others += 1
        else:
            found.append(follower)
    return found, others


def _judge(worker: str, told: dict[str, Any], name: str, wanted: Publication) -> Follower | None:
    catalogs, refused = told.get("catalogs"), told.get("refused")
    if not isinstance(catalogs, list):  # it has told nothing yet
        return Follower(worker, "loading")
    serving = dict(str(one).rsplit("@", 1) for one in catalogs if "@" in str(one))
    if name not in serving:
        return None
    if serving[name] == wanted.version:
        return Follower(worker, "serves")
    tried = refused.get(name) if isinstance(refused, dict) else None
    if isinstance(tried, dict) and tried.get("at") == wanted.at:
        return Follower(worker, "refused", str(tried.get("why", "")))
    return Follower(worker, "loading")


def _change(
    client: Any,
    keys: names.Keys,
    name: str,
    decide: Callable[[Published | None], Published],
) -> Published:
    for _ in range(_TRIES):
        stored = client.hget(keys.catalogs, name)
        after = decide(_read(stored))
        arguments = (name, stored or b"", after.model_dump_json(), keys.catalogs_changed)
        if client.eval(_PUBLISH, 1, keys.catalogs, *arguments):
            return after
    raise CatalogError(f"others publish {name!r} at the same time; try again")


def _read(stored: bytes | None) -> Published | None:
    """None where there is nothing, or another release wrote it: who publishes writes it anew."""
    try:
        return Published.model_validate_json(stored) if stored else None
    except ValidationError:
        return None


def _now(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)
