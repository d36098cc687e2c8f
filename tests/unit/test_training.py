"""What training decides before and after the model learns: examples, batches, verdicts."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reclane.errors import ModelUnusable
from reclane_worker.metrics import Gain
from reclane_worker.training.batches import MAX_ROWS, Lengths, Row, plan_batches
from reclane_worker.training.blending import SHARES, blend_best, blended, weights_of
from reclane_worker.training.card import Facts, card, licence_of
from reclane_worker.training.examples import (
    HARD_RANKS,
    MAX_HELD_OUT,
    MAX_ITEMS,
    Example,
    examples_of,
    hard_negatives,
    split,
)
from reclane_worker.training.heldout import pool
from reclane_worker.training.judging import SHOWN, Compared, compare, why_worse
from reclane_worker.training.order import Choices, Identity, settle
from reclane_worker.training.publishing import publish, put_aside, rejected_folder
from reclane_worker.training.trainer import is_spent, last_checkpoint

IDENTITY = Identity(model="base", revision="1", choices=Choices(), data={"items": "ab"})


def world(requests: int, items: int, seed: int) -> tuple[list[Example], Lengths]:
    """Requests that share items at random."""
    chance = random.Random(seed)
    examples = []
    for number in range(requests):
        relevant = frozenset(chance.sample(range(items), chance.randint(1, 3)))
        ranked = chance.sample(range(items), items)
        examples += examples_of(number, relevant, ranked, seed)
    lengths = Lengths(
        {n: chance.randint(3, 40) for n in range(requests)},
        {n: chance.randint(3, 40) for n in range(items)},
    )
    return examples, lengths


def padded(rows: list[Row], lengths: Lengths) -> int:
    longest = max(lengths.requests[row.request] for row in rows)
    items = max(lengths.items[item] for row in rows for item in (row.item, row.negative))
    return len(rows) * (longest + 2 * items)


@given(st.integers(1, 40), st.integers(5, 30), st.integers(130, 3_000), st.integers(0, 99))
def test_no_item_of_a_batch_answers_another_of_its_requests(
    requests: int, items: int, max_tokens: int, seed: int
) -> None:
    examples, lengths = world(requests, items, seed)
    relevant = {one.request: one.relevant for one in examples}
    for rows in plan_batches(examples, lengths, epochs=2, max_tokens=max_tokens, seed=seed):
        for row in rows:
            others = {i for o in rows if o is not row for i in (o.item, o.negative)}
            assert relevant[row.request].isdisjoint(others | {row.negative})
            assert row.item in relevant[row.request]
        assert len(rows) <= MAX_ROWS
        assert padded(rows, lengths) <= max_tokens  # the longest row alone has 120


@given(st.integers(1, 40), st.integers(5, 30), st.integers(0, 99))
def test_an_epoch_shows_every_example_once_and_a_seed_decides_the_order(
    requests: int, items: int, seed: int
) -> None:
    examples, lengths = world(requests, items, seed)
    planned = [
        plan_batches(examples, lengths, epochs=3, max_tokens=2_000, seed=seed) for _ in range(2)
    ]
    assert planned[0] == planned[1]
    seen = Counter((row.request, row.item) for rows in planned[0] for row in rows)
    assert seen == {(one.request, one.item): 3 for one in examples}


def test_hard_negatives_rank_high_but_not_first_and_are_never_relevant() -> None:
    ranked = list(range(100))
    wrong = hard_negatives(ranked, frozenset({0, 7, 20}))
    assert wrong == tuple(i for i in range(100) if i not in {0, 7, 20})[HARD_RANKS]
    assert hard_negatives([1, 2, 3], frozenset({2})) == (1, 3)  # a small catalog has no others


def test_a_request_that_many_items_answer_gives_few_examples() -> None:
    examples = examples_of(0, frozenset(range(50)), list(range(100)), seed=0)
    assert len({one.item for one in examples}) == MAX_ITEMS
    assert examples_of(0, frozenset(range(50)), list(range(50)), seed=0) == []


@pytest.mark.parametrize("requests, held", [(10, 1), (500, 50), (9_000, MAX_HELD_OUT)])
def test_held_out_requests_are_not_learnt_from(requests: int, held: int) -> None:
    learning, kept = split(requests, seed=0)
    assert len(kept) == held
    assert sorted(learning + kept) == list(range(requests))
    assert split(requests, seed=1)[1] != kept


def test_the_pool_holds_every_answer_and_hard_negatives() -> None:
    chosen = pool([frozenset({3}), frozenset({90})], [list(range(80)), list(range(80))])
    assert {3, 90} < set(chosen)
    assert len(chosen) == 2 + len(range(80)[HARD_RANKS]) + 1  # 3 shifts one list by one


def test_a_pool_that_is_full_has_an_answer_to_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reclane_worker.training.heldout.MAX_ITEMS", 4)
    wanted = [frozenset(range(10)), frozenset({20}), frozenset({30, 31})]
    chosen = pool(wanted, [[], [], []])
    assert len(chosen) == 4
    assert all(one & set(chosen) for one in wanted)


@pytest.mark.parametrize(
    "figures, spent",
    [
        ([0.1], False),
        ([0.3, 0.2], False),
        ([0.3, 0.2, 0.3], True),
        ([0.3, 0.2, 0.4], False),
        ([0.3, 0.4, 0.2, 0.5], False),
    ],
)
def test_learning_stops_after_two_evaluations_without_a_gain(
    figures: list[float], spent: bool
) -> None:
    assert is_spent(figures) is spent


def test_blending_takes_the_share_that_is_judged_best() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    before = weights_of(model)
    torch.nn.init.constant_(model.weight, 1.0)
    share, figure = blend_best(model, before, lambda one: -abs(one.weight.item() - 0.7))
    assert share == 0.75
    assert figure == pytest.approx(-0.05)
    assert model.weight.item() == pytest.approx(0.75)
    torch.nn.init.constant_(model.weight, 1.0)
    assert blend_best(model, before, lambda _: 0.5)[0] == max(SHARES)
    counts = {"n": torch.tensor(3)}
    assert blended({"n": torch.tensor(1)}, counts, 0.5) == counts


def test_a_model_that_answers_worse_is_told_apart() -> None:
    def values(value: float) -> dict[str, list[float]]:
        return {name: [value] * 10 for name in SHOWN}

    assert why_worse(compare(values(0.5), values(0.6))) is None
    assert why_worse(compare(values(0.5), values(0.5))) is None
    assert "NDCG@10 fell from 0.500 to 0.400" in str(why_worse(compare(values(0.5), values(0.4))))


def test_an_old_training_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    other = IDENTITY.model_copy(update={"data": {"items": "cd"}, "revision": "2"})
    settle(folder, other, resume=False)
    settle(folder, IDENTITY, resume=False)  # the other had learnt nothing
    (folder / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    settle(folder, IDENTITY, resume=True)
    with pytest.raises(ModelUnusable, match="--resume"):
        settle(folder, IDENTITY, resume=False)
    with pytest.raises(ModelUnusable, match="revision, data differ"):
        settle(folder, other, resume=True)
    (folder / "plan.json").write_text("{")
    with pytest.raises(ModelUnusable, match="cannot be read"):
        settle(folder, IDENTITY, resume=True)


def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, json.dumps({"global_step": 10})), (11, '{"global')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-12").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_published_folder_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "model"
    for number in range(2):
        folder = tmp_path / f"work-{number}"
        folder.mkdir(mode=0o700)
        (folder / "weights").write_text(str(number))
    publish(tmp_path / "work-0", out)
    assert out.stat().st_mode & 0o777 == 0o755
    with pytest.raises(ModelUnusable, match="exists"):
        publish(tmp_path / "work-1", out)
    rejected_folder(out).mkdir()
    assert (put_aside(tmp_path / "work-1", out) / "weights").read_text() == "1"
    assert (out / "weights").read_text() == "0"


def test_a_card_says_what_was_learnt_from_and_why_a_model_was_rejected() -> None:
    facts = Facts(IDENTITY, "apache-2.0", (("examples", "7"),), "30 validation requests")
    verdict = {"NDCG@10": Compared(0.5, 0.4, Gain(-0.1, -0.2, 0.0))}
    text = card(facts, verdict, "it fell")
    for told in ("base, revision 1", "license: apache-2.0", "| items | ab |", "30 validation"):
        assert told in text
    assert "| NDCG@10 | 0.500 | 0.400 | -0.100 (-0.200 to +0.000) |" in text
    assert "do not serve it**: it fell" in text
    assert "do not serve" not in card(facts, None, None)


def test_the_licence_is_that_of_the_base_models_card_or_package(tmp_path: Path) -> None:
    assert licence_of("package:pydantic", tmp_path) == "MIT"
    assert licence_of("some/model", tmp_path) == "unknown"
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# x\n")
    assert licence_of("package:pydantic", tmp_path) == "apache-2.0"
    (tmp_path / "README.md").write_text("# x\nlicense: none\n")
    assert licence_of("some/model", tmp_path) == "unknown"
