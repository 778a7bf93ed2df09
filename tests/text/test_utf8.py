import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_lm.text.utf8 import streamed, utf8, widths


@given(st.text())
def test_the_widths_are_those_of_utf8(text):
    assert widths(text).tolist() == [len(character.encode()) for character in text]


@given(st.lists(st.binary(max_size=3)))
def test_a_stream_says_what_all_bytes_say_together(pieces):
    assert "".join(streamed(pieces)) == b"".join(pieces).decode(errors="replace")


@given(st.text(min_size=1))
def test_a_stream_never_shows_a_part_of_a_character(text):
    shown = list(streamed(bytes([byte]) for byte in text.encode()))
    assert shown == list(text)


@given(st.text(), st.sampled_from("\ud800\udbff\udc80\udfff"), st.text())
def test_half_of_a_surrogate_pair_is_refused_where_it_is(before, half, after):
    with pytest.raises(ValueError, match=f"half of a surrogate pair, at position {len(before)};"):
        utf8(before + half + after)
