"""What is taken as it comes would have been taken, read in full, too."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kratos_sync.api.http.webhooks.identity_body import read_identity, subject_of
from kratos_sync.domain.identity import Identity
from tests.recorded import thirteen_calls, two_hundred_lives

ADA = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
RECORDED = [*thirteen_calls().calls, *two_hundred_lives().calls]
LIKE_HERS: dict[str, Any] = next(
    call.identity for call in RECORDED if len(call.identity.get("verifiable_addresses", ())) > 1
)


def read_in_full(body: bytes) -> UUID | None:
    """The identity's id, where the text may be kept and says an identity; None otherwise."""
    try:
        document, text = read_identity(body)
        return None if text is None else Identity.from_kratos(document).id
    except ValueError:
        return None


def test_whatever_kratos_sent_is_ordinary() -> None:
    assert len(RECORDED) == 879
    for call in RECORDED:
        assert subject_of(call.body) == read_in_full(call.body) == UUID(call.person)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"identity": null}',
        b'{"identity": {}}',
        b'{"identity": {"id": null}}',
        b'{"identity": {"id": "00000000-0000-0000-0000-000000000000"}}',
        b'{"identity": {"id": "e52e75c7afbb4316a4ef3977a428a2ca"}}',
        b'{"identity": {"id": "%s"}, "flow": 1}',
        b'{"identity": {"id": "%s", "credentials": {}}}',
        b'{"identity": {"id": "%s", "\\u0063redentials": {}}}',
        b'{"identity": {"credentials": {}}, "identity": {"id": "%s"}}',
        b'{"identity": {"id": "%s", "metadata_admin": {}}}',
        b'{"identity": {"id": "%s", "mood": "new to us"}}',
        b'{"identity": {"id": "%s", "updated_at": "yesterday"}}',
        b'{"identity": {"id": "%s", "updated_at": "2026-11-23T07:20:12"}}',
        b'{"identity": {"id": "%s", "updated_at": "9999-12-31T23:59:59-01:00"}}',
        b'{"identity": {"id": "%s", "organization_id": "none"}}',
        b'{"identity": {"id": "%s", "state": 7}}',
        b'{"identity": {"id": "%s", "recovery_addresses": [{"via": "email"}]}}',
        b'{"identity": {"id": "%s", "verifiable_addresses": [{"via": "email", "value": 7}]}}',
        b'{"identity": {"id": "%s", "traits": {"name": "NUL \\u0000"}}}',
        b'{"identity": {"id": "%s", "traits": {"name": "\\ud83d"}}}',
        b'{"identity": {"id": "%s", "traits": {"n": 1e400}}}',
        b'{"identity": {"id": "%s", "traits": NaN}}',
        b'{"identity": {"id": "%s", "traits": "\xff"}}',
        b'{"identity": {"id": "%s", "traits": ' + b"[" * 200 + b"]" * 200 + b"}}",
    ],
)
def test_whatever_needs_a_closer_look_is_not(body: bytes) -> None:
    assert subject_of(body.replace(b"%s", ADA.encode())) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
odd_values = json_values | st.sampled_from(
    [
        ADA,
        ADA.upper(),
        ADA.replace("-", ""),
        "0001-01-01T00:00:00Z",
        "2026-11-23T07:20:12.273115999Z",
        "2026-11-23t07:20:12z",
        "2026-11-23T07:20:60Z",
        "20261123T072012Z",
        "9999-12-31T23:59:59-01:00",
        "",
    ]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A recorded identity, with some fields anywhere in it changed, added or left out."""
    identity = json.loads(json.dumps(LIKE_HERS))
    for _ in range(draw(st.integers(0, 3))):
        within = draw(
            st.sampled_from(
                [
                    identity,
                    *identity.get("verifiable_addresses", ()),
                    *identity.get("recovery_addresses", ()),
                ]
            )
        )
        key = draw(st.sampled_from([*sorted(within), "metadata_admin", "credentials", "mood"]))
        if draw(st.booleans()):
            within.pop(key, None)
        else:
            within[key] = draw(odd_values)
        if not isinstance(identity.get("verifiable_addresses", []), list):
            break
        if not isinstance(identity.get("recovery_addresses", []), list):
            break
        for addresses in ("verifiable_addresses", "recovery_addresses"):
            if not all(isinstance(each, dict) for each in identity.get(addresses, [])):
                return json.dumps({"identity": identity}).encode()
    return json.dumps({"identity": identity}, ensure_ascii=draw(st.booleans())).encode(
        errors="replace"
    )


@given(bodies() | st.binary(max_size=60))
@example(json.dumps({"identity": LIKE_HERS}).encode())
def test_what_is_ordinary_says_the_same_when_it_is_read_in_full(body: bytes) -> None:
    subject = subject_of(body)

    assert subject is None or subject == read_in_full(body)
