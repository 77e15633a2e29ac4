"""A stage has one spelling, whichever way Follow Up Boss writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.observation import normalize_stage_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ACQ - Offers Made", "ACQ - Offers Made"),
        ("  Hot   lead ", "Hot lead"),
        ("Q&amp;A", "Q&A"),
        ("Caf\u0065\u0301", "Caf\u00e9"),
        ("Hot\u00a0lead", "Hot lead"),
        ("Hot\tlead", "Hot lead"),
        ("\u2003", ""),
    ],
)
def test_entities_blanks_and_unicode_forms_are_one_spelling(written: str, name: str) -> None:
    """The webhook and the API may write the same stage differently."""
    assert normalize_stage_name(written) == name


@given(st.text(alphabet=st.characters(exclude_characters="&;"), max_size=40))
def test_a_normal_name_stays_as_it_is(name: str) -> None:
    """Normalizing twice changes nothing."""
    assert normalize_stage_name(normalize_stage_name(name)) == normalize_stage_name(name)
