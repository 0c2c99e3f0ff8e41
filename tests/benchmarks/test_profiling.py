from benchmarks.profiling import summary

STACKS = """\
main (app.py:1);execute (psycopg/cursor.py:7) 30
main (app.py:1);execute (psycopg/cursor.py:9) 30
main (app.py:1);loads (json/decoder.py:3) 40
"""


def test_a_profile_shows_who_was_on_top_whatever_the_line() -> None:
    profile = summary(STACKS)

    assert profile["looks"] == 100
    assert profile["functions"] == [
        ("execute (psycopg/cursor.py)", 60.0),
        ("loads (json/decoder.py)", 40.0),
    ]
    assert profile["packages"] == [("psycopg", 60.0), ("json", 40.0)]


def test_a_process_that_never_ran_has_an_empty_profile() -> None:
    assert summary("")["functions"] == []
