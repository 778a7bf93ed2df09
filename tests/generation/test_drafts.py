import numpy as np

from functional_lm.generation.drafts import Drafts

QUICK = (1.0, 0.05)


def test_what_followed_the_last_tokens_is_the_guess():
    drafts = Drafts([1, 2, 3, 4, 5, 6, 7, 9, 2, 3, 4], QUICK)
    assert drafts.guess(3) == [5, 6, 7]
    assert drafts.guess(2) == [5]  # an odd number
    drafts.extend([5, 8])  # and no longer where the text goes another way
    assert drafts.guess(3) == []
    drafts.extend([3, 4, 5])
    assert drafts.guess(1) == [8]  # the last time counts


def test_a_loop_is_drafted_beyond_its_end():
    assert Drafts([5, 1, 2, 3] + [1, 2, 3] * 8, QUICK).guess(7) == [1, 2, 3, 1, 2, 3, 1]
    assert Drafts([7] * 30, QUICK).guess(3) == [7, 7, 7]


def test_nothing_is_drafted_where_there_is_nothing_or_it_costs_time():
    assert Drafts([], QUICK).guess(5) == Drafts([1, 2, 3], QUICK).guess(5) == []
    loop = [1, 2, 3] * 9
    assert Drafts(loop, QUICK).guess(0) == []
    assert Drafts(loop, (4.0, 1.0)).guess(15) == []
    assert Drafts([*loop[:7]], (1.5, 0.2)).guess(15) != Drafts([*loop[:7]], QUICK).guess(15)


def test_drafts_begin_where_they_come_true_and_end_where_they_do_not():
    noise = np.random.default_rng(0).integers(0, 3, 2000).tolist()
    costly = (1.5, 0.2)
    drafts = Drafts(noise, costly)
    assert drafts.guess(15) == []
    drafts.extend([0, 1, 2] * 40)
    assert drafts.guess(15)[:3] == [0, 1, 2]
