"""`reclane eval` on requests: several catalogs, popularity, earlier runs, the page of the worst."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reclane.cli import cli
from reclane.errors import InvalidSettings, ItemsInvalid, QualityFell, RunMismatch
from reclane_worker.cases import read_cases
from reclane_worker.evaluation.plan import read_plan
from reclane_worker.evaluation.saved import read_run
from reclane_worker.evaluation.worst import constraint_told

ITEMS = [
    {"id": "heat", "title": "Heat", "text": "a heist in the city", "genre": "crime"},
    {"id": "alien", "title": "Alien", "text": "a creature on a space ship", "genre": "horror"},
    {"id": "up", "title": "Up", "text": "a house that flies", "genre": "family"},
    {"id": "bug", "title": "<b>Bug</b>", "text": "insects & <script>", "genre": "horror"},
    {"id": "ran", "title": "Ran", "text": "a king and his sons", "genre": "war"},
]
ASKED = [
    {"id": "q-heist", "query": "a heist in the city", "relevant": ["heat"]},
    {"id": "q-horror", "query": "horror <b>on</b> a ship", "relevant": ["alien", "bug"]},
    {"id": "q-wrong", "query": "a house that flies", "relevant": ["ran"]},
    {"id": "q-space", "query": "a creature on a ship in space", "relevant": ["alien"]},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return lines(tmp_path / "items.jsonl", ITEMS), lines(tmp_path / "asked.jsonl", ASKED)


def run(*arguments: object) -> Result:
    words = ["eval", *map(str, arguments), "--model", "hash:384"]
    return CliRunner().invoke(cli, words)


def figures(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def saved(tmp_path: Path, *arguments: object) -> Path:
    path = tmp_path / "run.json"
    assert run(*arguments, "--save", path).exit_code == 0
    return path


# ---- figures


def test_a_request_may_have_more_than_a_query(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [{"query": "film", "relevant": ["1"], "candidates": ["1"], "mood": "good"}]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (case,) = read_cases(asked)
    assert case.request.candidates == ("1",)
    asked.write_text(json.dumps({"query": "film", "relevant": ["1"], "filters": 7}), "utf-8")
    with pytest.raises(ItemsInvalid, match="line 1: filters"):
        read_cases(asked)
    asked.write_text('{"query": ', "utf-8")
    with pytest.raises(ItemsInvalid, match="line 1 is no JSON"):
        read_cases(asked)


def test_answers_that_are_no_items_are_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    items, requests = files
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"query": "film", "relevant": ["zzz"]}\n', "utf-8")
    ended = run(items, strange)
    assert ended.exit_code == 1
    assert "no request's `relevant` names an item" in str(ended.exception)
    both = tmp_path / "both.jsonl"
    both.write_text(requests.read_text("utf-8") + strange.read_text("utf-8"), "utf-8")
    shown = " ".join(run(items, both).stdout.split())
    assert "1 requests name no item" in shown


def test_bm25_and_popularity_stand_beside_every_figure(files: tuple[Path, Path]) -> None:
    shown = run(*files).output
    assert re.search(r"measure\s+popularity\s+bm25\s+reclane\s+more than BM25", shown)
    assert "how often an item answers the other requests" in shown
    assert re.search(r"encode \d+\.\d+ ms", shown)


def test_popularity_does_not_know_a_requests_own_answers(files: tuple[Path, Path]) -> None:
    found = figures(*files)["scores"]["popularity"]
    # alien answers two requests, the others but `up` one. For q-heist that leaves alien, bug, ran,
    # heat; for q-horror and q-space heat, alien; for q-wrong alien, heat, bug, up, ran.
    assert found["RR"]["mean"] == pytest.approx((1 / 4 + 1 / 2 + 1 / 5 + 1 / 2) / 4)


def test_popularity_is_likes_where_there_are_interactions(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    seen = tmp_path / "seen.csv"
    seen.write_text("user,item,rating\na,ran,5\nb,ran,4\na,heat,5\nb,up,1\nc,up,1\nd,up,1\n")
    found = figures(*files, "--interactions", seen)
    assert found["popularity"] == "likes in the interactions"
    assert found["scores"]["popularity"]["RR"]["mean"] == pytest.approx(
        (1 / 2 + 1 / 3 + 1 + 1 / 3) / 4
    )


def test_a_batchs_time_is_counted_once_and_not_for_each_of_its_requests(
    files: tuple[Path, Path],
) -> None:
    found = figures(*files)
    assert list(found["stages_ms"]) == [
        "read and tokenise",
        "encode",
        "retrieve and rank",
        "write the answer",
    ]
    assert (
        0 < sum(found["stages_ms"].values()) * 4 / 1e3 == pytest.approx(found["seconds"], abs=1e-3)
    )


def test_a_plan_measures_several_catalogs_in_one_report(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    plan = tmp_path / "quality.toml"
    plan.write_text(
        '[films]\nitems = "items.jsonl"\nrequests = "asked.jsonl"\n'
        '["[by] genre"]\nitems = "items.jsonl"\nrequests = "asked.jsonl"\nfields = ["genre"]\n'
    )
    found = figures("--plan", plan)["catalogs"]
    assert list(found) == ["films", "[by] genre"]
    assert found["films"]["scores"]["bm25"] != found["[by] genre"]["scores"]["bm25"]
    alone = figures(*files)
    assert found["films"]["scores"] == alone["scores"]
    shown = run("--plan", plan).output
    assert "all catalogs" in shown
    assert "[by] genre: 4 requests" in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no catalog"),
        ("[films", "cannot be read as TOML"),
        ("films = 1", r"\[films\]"),
        ('[films]\nitems = "items.jsonl"', r"\[films\]: requests"),
        ('[films]\nitems = "no.jsonl"\nrequests = "asked.jsonl"', "there is no items"),
        ('[films]\nitems = "items.jsonl"\nrequests = "asked.jsonl"\nlimt = 3', "limt"),
    ],
)
def test_a_plan_that_is_wrong_says_where(
    text: str, told: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InvalidSettings, match=told):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["items.jsonl"],
        ["items.jsonl", "asked.jsonl", "--plan", "plan.toml"],
        ["items.jsonl", "asked.jsonl", "--tolerance", "0.1"],
        ["items.jsonl", "--interactions", "asked.jsonl", "--save", "run.json"],
        ["items.jsonl", "asked.jsonl", "--save", "nowhere/run.json"],
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str],
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text('[a]\nitems = "items.jsonl"\nrequests = "asked.jsonl"\n')
    assert run(*arguments).exit_code == 2


# ---- earlier runs


def test_a_saved_run_holds_every_requests_values_and_no_texts(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    path = saved(tmp_path, *files)
    text = path.read_text("utf-8")
    assert "heist in" not in text
    found = read_run(path)
    (catalog,) = found.catalogs.values()
    assert catalog.requests == ("q-heist", "q-horror", "q-wrong", "q-space")
    assert catalog.values["reclane"]["Success@1"][:3] == (1.0, 1.0, 0.0)
    assert catalog.values.keys() == {"reclane", "bm25", "popularity"}
    assert (found.model, found.settings.get("dense_weight")) == ("hash:384", None)


def test_a_run_equals_itself(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, *files)
    done = run(*files, "--against", path, "--tolerance", "0")
    assert done.exit_code == 0
    assert "the same model, settings and catalogs" in done.output
    assert "+.000 (+.000 to +.000)" in done.output


def test_what_differs_is_named_and_a_fall_beyond_the_tolerance_ends_with_1(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, *files)
    lines(files[0], [row | {"text": ""} for row in ITEMS])
    monkeypatch.setenv("RECLANE_DENSE_WEIGHT", "0.5")
    done = run(*files, "--against", path)
    assert done.exit_code == 0
    assert "dense_weight: not set -> 0.5" in done.output
    differ = "items, lexical, lookup, vectors, vocabulary differ"
    assert re.search(rf"eval: version \w+ -> \w+ \({differ}\)", done.output)
    fell = run(*files, "--against", path, "--tolerance", "0.02")
    assert fell.exit_code == 1
    assert isinstance(fell.exception, QualityFell)
    assert re.search(r"eval: NDCG@10 0\.\d+ -> 0\.\d+", str(fell.exception))
    assert run(*files, "--against", path, "--tolerance", "1").exit_code == 0


def test_other_requests_are_refused_and_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, *files)
    lines(files[1], [*ASKED[1:], {"id": "q-new", "query": "a king", "relevant": ["ran"]}])
    done = run(*files, "--against", path)
    assert isinstance(done.exception, RunMismatch)
    assert "1 are new (q-new), 1 are gone (q-heist)" in str(done.exception)
    lines(files[1], [ASKED[0] | {"relevant": ["up"]}, *ASKED[1:]])
    done = run(*files, "--against", path)
    assert "their texts or answers differ" in str(done.exception)


def test_requests_in_another_order_are_the_same_requests(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    path = saved(tmp_path, *files)
    lines(files[1], ASKED[::-1])
    found = figures(*files, "--against", path)["against"]
    gains = [change["gain"] for change in found["changes"]["eval"].values()]
    assert all(one == {"mean": 0.0, "low": 0.0, "high": 0.0} for one in gains)


def test_a_catalog_that_is_missing_now_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, *files)
    (tmp_path / "p.toml").write_text('[b]\nitems = "items.jsonl"\nrequests = "asked.jsonl"\n')
    done = run("--plan", tmp_path / "p.toml", "--against", path)
    assert "also measured eval" in str(done.exception)


@pytest.mark.parametrize("change", [{"format": 2}, {"catalogs": {"a": {}}}, {"made": None}, None])
def test_a_file_that_is_no_run_is_refused(
    change: dict[str, Any] | None, files: tuple[Path, Path], tmp_path: Path
) -> None:
    path = saved(tmp_path, *files)
    broken = "{" if change is None else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(broken)
    with pytest.raises(RunMismatch, match="--save"):
        read_run(path)


def test_requests_without_ids_are_called_by_their_lines(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [{k: v for k, v in row.items() if k != "id"} for row in ASKED]
    lines(files[1], [*rows, rows[0] | {"id": "same"}, rows[0] | {"id": "same"}])
    (catalog,) = read_run(saved(tmp_path, *files)).catalogs.values()
    assert catalog.requests == ("1", "2", "3", "4", "same", "same#6")


# ---- the page


class Page(HTMLParser):
    """Tags that were opened and not closed, and all that is said."""

    VOID = frozenset({"meta", "br"})
    OPTIONAL = frozenset({"th", "td", "tr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_shows_the_worst_first_and_nothing_runs_or_is_loaded(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    path = saved(tmp_path, *files)
    assert run(*files, "--against", path, "--html", out, "--ablate").exit_code == 0
    page = Page(out.read_text("utf-8"))
    assert page.open == []
    assert not page.seen & {"script", "link", "img", "b>"}
    assert page.links == ["#catalog-1"]
    assert page.said.index("request q-wrong") < page.said.index("request q-heist")
    for told in ("horror <b>on</b> a ship", "<b>Bug</b>", "genre is horror", "came first"):
        assert told in page.said
    assert "What each part gains" in page.said
    assert "word for word" in page.said
    assert "Requests that fell most" not in page.said


def test_the_page_shows_what_fell(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = saved(tmp_path, *files)
    lines(files[0], [row | {"text": ""} for row in ITEMS])
    assert run(*files, "--against", path, "--html", tmp_path / "p.html").exit_code == 0
    said = " ".join(Page((tmp_path / "p.html").read_text("utf-8")).said.split())
    assert "Requests that fell most" in said
    assert re.search(r"items, lexical, lookup, vectors, vocabulary differ", said)
    assert re.search(r"NDCG@10 0\.\d+ \(before 1\.000\)", said)


@pytest.mark.parametrize(
    ("condition", "hard", "unless", "told"),
    [
        ({"gte": 1990.0, "lte": 1999.0}, True, False, "must: a is 1990 to 1999"),
        ({"gt": 3.5}, False, False, "would rather: a is above 3.5"),
        ({"any_of": ["x", "y"]}, True, True, "must not: a is x or y"),
        ({"eq": 0}, True, False, "must: a is 0"),
        ({"any_of": [True]}, True, False, "must: a is True"),
    ],
)
def test_constraints_are_told_in_words(
    condition: dict[str, Any], hard: bool, unless: bool, told: str
) -> None:
    constraint = {
        "attributes": ["a"],
        "condition": condition,
        "hard": hard,
        "unless": unless,
        "said": "",
    }
    assert constraint_told(constraint) == told


@pytest.mark.parametrize(
    "relevant", ['"i17"', "[]", "[true]", "[1.5]", "[null]", '{"i17": 1}', "17"]
)
def test_answers_that_are_no_list_of_ids_are_refused_by_their_line(
    relevant: str, tmp_path: Path
) -> None:
    path = tmp_path / "asked.jsonl"
    good = '{"query": "a", "relevant": ["x", 17]}\n'
    path.write_text(f'{good}{{"query": "b", "relevant": {relevant}}}\n')
    with pytest.raises(ItemsInvalid, match="line 2: write an object with `query` and a list"):
        read_cases(path)
    path.write_text(good)
    assert read_cases(path)[0].relevant == {"x", "17"}
