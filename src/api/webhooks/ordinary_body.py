"""Bodies like nearly all that come: seen to be an identity, and not read any further.

Whatever is taken here `identity_body.read_identity` and `Identity.from_kratos` would take too, at
three times the cost. They decide about everything else, and say what is wrong with it.
"""

import re
from typing import Final
from uuid import UUID

import msgspec

from application.json_body import finite, is_too_deep
from domain import uuids
from domain.times import from_rfc3339

_ASCII_ESCAPE: Final = re.compile(rb"\\u00[0-7]")


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What Kratos may add one day, and what is not for us (credentials), is not ordinary."""


class _RecoveryAddress(_Strict):
    value: str
    via: str
    id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _VerifiableAddress(_RecoveryAddress):
    verified: bool | None = None
    status: str | None = None
    verified_at: str | None = None


class _Identity(_Strict):
    id: str
    external_id: str | None = None
    schema_id: str | None = None
    schema_url: str | None = None
    state: str | None = None
    state_changed_at: str | None = None
    traits: object = None
    verifiable_addresses: list[_VerifiableAddress] | None = None
    recovery_addresses: list[_RecoveryAddress] | None = None
    metadata_public: object = None
    created_at: str | None = None
    updated_at: str | None = None
    organization_id: str | None = None
    region: str | None = None


class _Body(_Strict):
    identity: _Identity


_decode: Final = msgspec.json.Decoder(_Body, float_hook=finite).decode


def subject_of(body: bytes) -> UUID | None:
    """The id of the identity in an ordinary body; None for any other, which may be right too."""
    if body.count(b'"identity"') != 1 or is_too_deep(body):
        return None
    if b"\\u00" in body and _ASCII_ESCAPE.search(body):
        return None
    try:
        identity = _decode(body).identity
        times = [identity.state_changed_at, identity.created_at, identity.updated_at]
        ids = [identity.organization_id]
        for address in identity.recovery_addresses or ():
            times += (address.created_at, address.updated_at)
            ids.append(address.id)
        for proved in identity.verifiable_addresses or ():
            times += (proved.created_at, proved.updated_at, proved.verified_at)
            ids.append(proved.id)
        for time in times:
            if time is not None:
                from_rfc3339(time)
    except (ValueError, RecursionError):  # msgspec's own errors too
        return None
    for each in ids:
        if each is not None and uuids.from_text(each) is None:
            return None
    subject = uuids.from_text(identity.id)
    return subject if subject is not None and subject.int else None
