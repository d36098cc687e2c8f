"""What deploy/ promises, read from its files: no image can be built where these tests run.

`make check` holds the Dockerfile to hadolint and the compose files to the schema of the Compose
specification; tests/integration/test_deploy.py starts the same commands as plain processes.
"""

import re
import tomllib
from fnmatch import fnmatch

import pytest

from compose import DEPLOY, ROOT, Image, compose, example, images, interpolate, services, variables

TARGETS = ("worker", "worker-cuda", "control")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
DRAIN_MARGIN_S = 20  # Celery's own consumer takes seconds to stop


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest) -> Image:
    return images()[request.param]


def test_images_run_as_a_user_without_rights_and_end_on_sigterm(image: Image) -> None:
    uid, _, gid = image.user.partition(":")
    assert int(uid) >= 10_000  # Kubernetes' runAsNonRoot wants a number
    assert int(gid) >= 10_000
    assert image.stop_signal == "SIGTERM"
    assert image.command is not None


def test_images_hold_nothing_but_the_base_and_one_environment(image: Image) -> None:
    ((stage, sources),) = image.copies
    assert stage.startswith("environment-")
    assert sources == ["/opt/reclane"]


def test_a_build_without_a_target_makes_the_worker_for_cpu() -> None:
    assert list(images())[-1] == "worker"


def test_worker_images_ask_whether_the_worker_lives_and_the_other_asks_nothing() -> None:
    stages = images()
    for target in ("worker", "worker-cuda"):
        health = stages[target].health
        assert health is not None
        assert health[:3] == ["reclane", "probe", "live"]
        assert "RECLANE_ID_FILE" in stages[target].environment
    assert stages["control"].health is None


def test_every_image_from_elsewhere_has_a_full_version() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    others = [raw["image"] for raw in compose()["services"].values() if "build" not in raw]
    assert others
    for name in (base, *others):
        assert re.search(r":\d+\.\d+\.\d+", name), name


def test_what_is_copied_exists_and_nothing_else_is_sent_to_the_builder() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for stage in images().values()
        for origin, sources in stage.copies
        if not origin
        for source in sources
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    assert any(fnmatch("worker/x/__pycache__", rule) for rule in rules[1:])


def test_what_images_install_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0].lower() for line in lines}
    asked = re.findall(r"requirements\.py ([\w ]+) >", DOCKERFILE)
    extras = {extra for some in asked for extra in some.split()}
    assert extras == {"worker", "beat", "flower"}
    for extra in extras:
        for requirement in project["dependencies"] + project["optional-dependencies"][extra]:
            name = re.split(r"[<>=!~ ]", requirement)[0].lower()
            assert {name, name.replace("-", "_")} & pins, requirement
    assert "PIP_CONSTRAINT" in images()["environment-cpu"].environment


def test_the_example_gives_every_variable_that_must_be_given_and_no_other() -> None:
    used = variables(COMPOSE)
    passed_on = {
        key
        for raw in compose()["services"].values()
        for key, value in raw.get("environment", {}).items()
        if value is None
    }
    given = set(example())
    assert {name for name, needed in used.items() if needed} <= given
    assert given <= set(used) | passed_on


@pytest.mark.parametrize("name", sorted(n for n, needed in variables(COMPOSE).items() if needed))
def test_compose_refuses_to_start_without_what_must_be_given(name: str) -> None:
    with pytest.raises(AssertionError, match=f"{name} is not given"):
        interpolate(COMPOSE, {**example(), name: ""})


def test_every_service_has_time_to_stop_and_the_worker_to_drain() -> None:
    found = services(example())
    assert set(found) == {"redis", "worker", "beat", "flower"}
    worker = found["worker"]
    drain_s = float(worker.environment["RECLANE_DRAIN_S"])
    assert worker.stop_grace_s >= drain_s + DRAIN_MARGIN_S


def test_nothing_starts_before_redis_answers_and_secrets_reach_only_who_needs_them() -> None:
    raw = compose()["services"]
    for name in ("worker", "beat", "flower"):
        assert raw[name]["depends_on"]["redis"]["condition"] == "service_healthy"
        assert raw[name]["read_only"] is True
        assert raw[name]["cap_drop"] == ["ALL"]
    assert [n for n, s in raw.items() if "FLOWER_BASIC_AUTH" in s["environment"]] == ["flower"]
    for name, service in raw.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_redis_syncs_every_write_and_never_evicts() -> None:
    command = services(example())["redis"].command
    directives = dict(zip(command[1::2], command[2::2], strict=True))
    assert command[0] == "valkey-server"
    assert directives["--appendonly"] == "yes"
    assert directives["--appendfsync"] == "always"
    assert directives["--maxmemory-policy"] == "noeviction"


def test_catalogs_are_mounted_read_only() -> None:
    (bind,) = [v for v in compose()["services"]["worker"]["volumes"] if "/catalogs" in v]
    assert bind.endswith(":/catalogs:ro")


def test_the_cuda_file_changes_the_worker_alone_and_names_a_target_that_exists() -> None:
    changed = compose("compose.cuda.yaml")["services"]
    assert list(changed) == ["worker"]
    assert changed["worker"]["build"]["target"] in images()
