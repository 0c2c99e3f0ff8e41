"""The transfer codings of a request: of all that there are we know one."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

KNOWN: Final = [b"chunked"]
FAULTY: Final = (HTTPStatus.BAD_REQUEST, "the request is not HTTP")
UNKNOWN: Final = (HTTPStatus.NOT_IMPLEMENTED, "the transfer coding is not known")


def refusal(transfer_encoding: Sequence[bytes], version: str) -> tuple[HTTPStatus, str] | None:
    """What to answer to these lines of Transfer-Encoding by RFC 9112, 6.1; None if all is well.

    Where one ends the connection too: nobody knows where the body would end.
    """
    if version != "1.1":
        return FAULTY
    codings = [coding.strip(b" \t").lower() for coding in b",".join(transfer_encoding).split(b",")]
    if codings == KNOWN:
        return None
    return FAULTY if all(coding in {b"", *KNOWN} for coding in codings) else UNKNOWN
