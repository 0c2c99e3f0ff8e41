"""The keys that open a webhook."""

import hmac
from collections.abc import Iterable
from hashlib import sha256


class ApiKeys:
    """The active keys, held as digests only; while keys are being changed there are two."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys; raises ValueError when there is none, or an empty one."""
        self._digests = tuple(_digest(key) if key else b"" for key in keys)
        if not self._digests or not all(self._digests):
            raise ValueError("a webhook needs at least one API key, and none of them empty")

    def open_to(self, offered: bytes) -> bool:
        """Whether this is one of the keys, in a time that tells neither which nor how nearly.

        Digests are of one length whatever was offered, and every one is compared.
        """
        digest = sha256(offered).digest()
        opened = False
        for each in self._digests:
            opened |= hmac.compare_digest(each, digest)
        return opened

    def __repr__(self) -> str:
        return f"<{len(self._digests)} API keys>"


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
