"""Reading JSON strictly."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kratos_sync.application.json_body import MAX_DEPTH, JsonBody, NotJson, decode, decode_strictly
from kratos_sync.domain.events import KratosIdentityUpdated
from tests.api.http.client import ADA, SYNC, Api, message


def nested(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b" ", "is not JSON"),
        (b"ada", "is not JSON"),
        (b'{"a": 1', "is not JSON"),
        (b"{} {}", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b'"a\x00b"', "is not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
        (b"9" * 4301, "is not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "beyond the range of doubles"),
        (b"[-1.5e400]", "beyond the range of doubles"),
        (b'"\xff"', "is not UTF-8"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b"[" * (MAX_DEPTH + 1), "is not JSON"),
        (nested(MAX_DEPTH + 1), "nested too deeply"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_400(body: bytes, why: str) -> None:
    with pytest.raises(NotJson, match=why):
        decode(body)
    answer = Api().post(SYNC, body)
    assert answer.status_code == 400
    assert why in message(answer)[2]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b' {"a" : [1, 2.5, true, "x"]}\n', {"a": [1, 2.5, True, "x"]}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"9007199254740993", 9007199254740993),
        (b"1e-999", 0.0),
        ('"Zoë \\ud83d\\ude00"'.encode(), "Zoë 😀"),
        (b"9" * 4300, int("9" * 4300)),
    ],
)
def test_json_is_read_as_it_is(body: bytes, value: object) -> None:
    decoded = decode(body)
    assert decoded.value == value
    assert not decoded.replaced


def test_a_body_may_be_nested_to_the_limit() -> None:
    assert decode(nested(MAX_DEPTH)).value


def test_characters_that_jsonb_cannot_hold_are_replaced_and_counted_by_field() -> None:
    decoded = decode(
        rb'{"identity": {"traits": {"na\u0000me": ["A\u0000da", "\ud800x\udc00"]},'
        rb' "state": "\u0000", "ada@example.org": "\u0000"}, "\u0000": "\u0000"}'
    )
    assert decoded.value == {
        "identity": {
            "traits": {"na\ufffdme": ["A\ufffdda", "\ufffdx\ufffd"]},
            "state": "\ufffd",
            "ada@example.org": "\ufffd",
        },
        "\ufffd": "\ufffd",
    }
    assert decoded.replaced == {
        "identity.traits": 4,
        "identity.state": 1,
        "identity.?": 1,
        "": 1,
        "?": 1,
    }


def test_an_identity_with_an_odd_character_is_recorded_and_the_log_says_where() -> None:
    api = Api()
    body = rb'{"identity": {"id": "%s", "traits": {"name": "Ad\u0000a"}}}' % str(ADA).encode()
    with capture_logs() as logs:
        assert api.post(SYNC, body).status_code == 200
    (event,) = api.bus.events
    assert isinstance(event, KratosIdentityUpdated)
    assert event.identity.traits == {"name": "Ad\ufffda"}
    assert logs[0] == {
        "event": "webhook_characters_replaced",
        "log_level": "warning",
        "fields": {"identity.traits": 1},
    }


any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
pieces = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'{}[],:"-+.eE0123456789 \t\r\n\\/u\x00\x0b\x7f\xff'),
        *(b"null", b"true", b"false", b"NaN", b"Infinity", b"1e400", b"1e-400", b"9" * 4301),
        *(
            b'"a"',
            b'"a":1',
            b'"\\u0000"',
            b'"\\ud800"',
            b'"\\udc00\\ud83d\\ude00"',
            b"\xed\xa0\x80",
        ),
        *(b"\xef\xbb\xbf", b"\xc2\xa0", b"-0", b"-0.0", b"1.0", b"01", b"[" * 70, b"]" * 70),
    ]
)


@settings(max_examples=300, deadline=None)
@given(any_value, st.booleans())
def test_both_ways_of_reading_agree_on_any_json(value: object, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert_they_agree(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces, max_size=12).map(b"".join) | st.binary(max_size=40))
def test_both_ways_of_reading_agree_on_any_bytes(body: bytes) -> None:
    assert_they_agree(body)


def assert_they_agree(body: bytes) -> None:
    """In values and their types, -0.0 too, in what is replaced, and in what is refused and why."""
    assert outcome_of(decode, body) == outcome_of(decode_strictly, body)


def outcome_of(read: Callable[[bytes], JsonBody], body: bytes) -> str:
    try:
        decoded = read(body)
    except NotJson as error:
        return f"refused: {error}"
    return f"{decoded.value!r} {dict(decoded.replaced)!r}"
