"""How far a model's vector of a text is trusted, and what of a text it is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclane_worker.literacy import READABLE, Literacy
from reclane_worker.text import script

SCRIPTS = {"LATIN": 1.0, "GREEK": 0.6, "CJK": 0.25}
UNKNOWN = 100
literacy = Literacy(SCRIPTS, UNKNOWN)
texts = st.text(alphabet="abz é 科幻 λ д 1! ")


@given(texts, st.lists(st.sampled_from([1, 2, UNKNOWN]), max_size=6))
def test_trust_is_the_mean_over_letters_times_the_tokens_that_are_known(
    text: str, tokens: list[int]
) -> None:
    letters = [SCRIPTS.get(script(c), 0.0) ** 2 for c in text if script(c)]
    wanted = 1.0
    if letters and tokens:
        wanted = sum(letters) / len(letters) * (1 - tokens.count(UNKNOWN) / len(tokens))
    assert literacy.trust(text, tokens) == pytest.approx(wanted)


def test_without_a_token_for_the_unknown_all_are_known() -> None:
    assert Literacy(SCRIPTS, None).trust("ab", [1, UNKNOWN]) == 1.0


@given(texts)
def test_letters_that_cannot_be_read_are_left_out_unless_there_are_no_others(text: str) -> None:
    letters = [c for c in text if script(c)]
    read = [c for c in letters if SCRIPTS.get(script(c), 0.0) > READABLE]
    given = literacy.readable(text)
    assert len(given) == len(text)
    assert [c for c in given if script(c)] == (read or letters)
    assert [c for c in given if not script(c) and c != " "] == [
        c for c in text if not script(c) and c != " "
    ]
