import pytest

from kratos_sync.api.http.connections import FAULTY, UNKNOWN, refusal


@pytest.mark.parametrize("line", [b"chunked", b" Chunked\t"])
def test_chunked_is_known(line: bytes) -> None:
    assert refusal([line], "1.1") is None


def test_no_coding_is_known_in_http_1_0() -> None:
    assert refusal([b"chunked"], "1.0") == FAULTY


@pytest.mark.parametrize("line", [b"gzip, chunked", b"chunked\x0b", b"\x0cchunked"])
def test_what_is_not_exactly_chunked_is_another_coding(line: bytes) -> None:
    assert refusal([line], "1.1") == UNKNOWN
