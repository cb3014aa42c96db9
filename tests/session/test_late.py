"""Which calls a cancellation means, and which answers it takes back although they were written."""

import pytest

from claude_peers.session import late
from claude_peers.session.late import Late, spellings


@pytest.mark.parametrize(
    ("given", "meant"),
    [(7, (7,)), ("a", ("a",)), ("7", ("7", 7)), ("9" * 17, ("9" * 17,)), (None, ()), ([7], ())],
)
def test_a_number_that_comes_as_text_means_the_number_as_well(given, meant):
    assert spellings(given) == meant


def test_an_answer_is_taken_back_once():
    fates, answers = [], Late()
    answers.keep(7, fates.append)
    for _ in range(2):
        answers.take_back(7)
    assert fates == [False]


def test_of_two_answers_to_one_id_the_later_is_taken_back():
    first, second, answers = [], [], Late()
    answers.keep(7, first.append)
    answers.keep(7, second.append)
    answers.take_back(7)
    assert (first, second) == ([], [False])


def test_only_the_last_answers_can_be_taken_back():
    fates, answers = [], Late()
    for key in range(late.LAST + 1):
        answers.keep(key, lambda whole, key=key: fates.append((key, whole)))
    for key in (0, 1):
        answers.take_back(key)
    assert fates == [(1, False)]
