import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.application.trace_context import trace_id


def test_a_trace_id_is_the_second_part_of_a_traceparent() -> None:
    assert (
        trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        == "4bf92f3577b34da6a3ce929d0e0e4736"
    )


@pytest.mark.parametrize("header", [None, "", "ada", "00-ada", "00-4bf9-00f0"])
def test_what_is_no_traceparent_has_no_trace_id(header: str | None) -> None:
    assert trace_id(header) is None


@given(st.text())
def test_any_header_gives_a_trace_id_of_its_own_or_none(header: str) -> None:
    found = trace_id(header)

    assert found is None or found in header
