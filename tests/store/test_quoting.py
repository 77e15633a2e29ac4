"""A text or a JSON document inside a script is one literal, whatever it contains and however the session is set."""

from __future__ import annotations

import json
from random import Random

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.store.dsn import parse
from fubd.store.quoting import quote_document, quote_literal
from tests.recorder import at

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("$'\\\";"))
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS, lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner)
)
_ODD = (
    "$$",
    "$$; DROP TABLE fubd.claim; --",
    "'; --",
    "\\",
    "\\'",
    '"',
    "$1",
    "${document}",
    "\\u0024",
    "é",
    "\U0001f600",
    "/*",
    "--",
    "\n\r\t",
    "",
)


@given(_DOCUMENTS)
def test_nothing_in_a_document_ends_its_literal(document: object) -> None:
    """Between the two quotes there is no dollar and nothing but ASCII, and it is the document."""
    start, text, end = quote_document(document).split("$$")
    assert (start, end) == ("", "::jsonb")
    assert "$" not in text
    assert text.isascii()
    assert json.loads(text) == document


@pytest.mark.parametrize(
    "setting",
    ["standard_conforming_strings = off", "backslash_quote = on", "client_encoding = 'SQL_ASCII'", "client_encoding = 'LATIN1'"],
)
async def test_the_server_reads_what_was_written(database: str, setting: str) -> None:
    """With each setting that changes how the server takes a string."""
    rng = Random(setting)
    drawn = ["".join(rng.choices("".join(_ODD), k=rng.randint(0, 30))) for _ in range(200)]
    documents = [[text, {text: text}] for text in (*_ODD, *drawn)]
    texts = [text for text in (*_ODD, *drawn) if text.isascii()]
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        await connection.execute("CREATE TEMPORARY TABLE written (number int, document jsonb)")
        await connection.execute(f"SET {setting}")
        for number, document in enumerate(documents):
            await connection.execute(f"INSERT INTO written VALUES ({number}, {quote_document(document)}); COMMIT")
        literals = ", ".join(quote_literal(text) for text in texts)
        read = await connection.fetchval(f"SELECT ARRAY[{literals}]")
        await connection.execute("RESET ALL")
        found = await connection.fetch("SELECT document::text AS text FROM written ORDER BY number")
    finally:
        await connection.close()
    assert [json.loads(row["text"]) for row in found] == documents
    assert read == texts


def test_instants_are_written_in_iso_format() -> None:
    """With their zone, so that the session's does not matter."""
    assert quote_document({"at": at("10:00:01")}) == '$${"at": "2026-01-05T10:00:01+00:00"}$$::jsonb'
