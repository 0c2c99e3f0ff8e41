"""Reconciliation: whatever happened, our copies become what Kratos lists."""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog

from kratos_sync.application.ports.kratos import KratosAdmin, KratosRefused, Page
from kratos_sync.application.ports.reconciliation import (
    Findings,
    ListingUnordered,
    NoKnownIdentity,
    Reconciliation,
    Reconciliations,
)
from kratos_sync.domain.id_range import ALL_IDS, IdRange

ALWAYS_ALLOWED: Final = 10
ALLOWED_PART: Final = 100
"""Without confirmation 10 identities may be deleted, or 1 in 100 of those held if that is more."""
ASKED_AT_ONCE: Final = 50
SAMPLE: Final = 20
MOST_IN_FLIGHT: Final = 2_000
"""No further page is asked for while so many deliveries are pending."""
POLL_SECONDS: Final = 0.1
POLLS_PER_WARNING: Final = 300
MOST_POLLS: Final = 6_000
BAD_REQUEST: Final = 400

log = structlog.get_logger()


class DeletesRefused(Exception):
    """Kratos lists too few of the identities held: none was deleted."""


class ConsumersAreBehind(Exception):
    """Consumers do not keep up. What was recorded so far stays recorded."""


class AnotherKratos(Exception):
    """The listing is of another Kratos: nothing was recorded from it."""


class Reconcile:
    """Compares every page of the listing with what is held, then looks up the unlisted ones.

    The listing is of another Kratos if all of its schemas have other origins than those held (and
    than ``public_urls``, which say that Kratos has moved), or if it begins with unknown identities
    only and Kratos has none of a sample of those held. Nothing is recorded from another Kratos.
    ``wake_relay`` is called after each page that differs.
    """

    def __init__(
        self,
        kratos: KratosAdmin,
        reconciliations: Reconciliations,
        *,
        public_urls: Collection[str] = (),
        now: Callable[[], datetime],
        wake_relay: Callable[[], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kratos = kratos
        self._reconciliations = reconciliations
        self._public_urls = public_urls
        self._now = now
        self._wake_relay = wake_relay
        self._pause = pause

    def run(self, *, dry_run: bool, allow_deletes: int = 0) -> Iterator[Reconciliation]:
        """Reconcile; give the run after each page, and after each round of lookups.

        Raises KratosError, AnotherKratos, DeletesRefused, ListingUnordered, AnotherReconciliation,
        LedgerUnavailable, ConcurrencyConflict or ReconciliationLost. No identity is deleted unless
        Kratos itself said of it alone that it has none.
        """
        with self._reconciliations.begin(dry_run=dry_run) as run:
            yield run
            may_start_over = run.resumed
            while not run.listed:
                at = self._now()
                try:
                    page = self._kratos.page(run.token)
                except KratosRefused as error:
                    has_expired = run.token is not None and error.status == BAD_REQUEST
                    if not (may_start_over and has_expired):
                        raise
                    run.start_over()
                    may_start_over = False
                else:
                    self._compare(run, page, at, max(allow_deletes, ALWAYS_ALLOWED))
                    if run.differences and not dry_run:
                        self._wake_relay()
                        self._await_consumers()
                yield run
            self._check_deletes(run, max(allow_deletes, allowed(run.findings)))
            while unlisted := run.unlisted(ASKED_AT_ONCE):
                at = self._now()
                found = {each: self._kratos.find(each) for each in unlisted}
                deleted = [each for each, identity in found.items() if identity is None]
                run.settle(deleted, [each for each in unlisted if found[each] is not None], at)
                if deleted and not dry_run:
                    self._wake_relay()
                yield run
            run.end("completed")
            yield run

    def _compare(self, run: Reconciliation, page: Page, at: datetime, most_unlisted: int) -> None:
        try:
            page = held_part(page, run.ids)
            self._check_origins(run, page)
            run.compare_page(page, at, most_unlisted)
        except ListingUnordered:
            run.end("refused: the listing is not in order")
            raise
        except NoKnownIdentity as error:
            if not any(self._kratos.find(each) for each in run.sample_ids(SAMPLE)):
                run.end("refused: another Kratos")
                raise AnotherKratos(str(error)) from None
            run.is_same_kratos = True
            run.compare_page(page, at, most_unlisted)

    def _check_origins(self, run: Reconciliation, page: Page) -> None:
        foreign = foreign_page(page.identities, run.schema_urls, self._public_urls)
        if foreign is None:
            return
        where = ", ".join(foreign.origins[:3])
        if run.knows(foreign.ids):
            run.end("refused: Kratos has moved, or this is a copy of it")
            raise AnotherKratos(
                f"it lists people who are here, and its schemas are now at {where}: if Kratos"
                f" has moved, set KRATOS_PUBLIC_URL or KRATOS_BROWSER_URL to {where}; if this"
                " is a copy of it, KRATOS_ADMIN_URL is wrong"
            )
        run.end("refused: another Kratos")
        raise AnotherKratos(
            f"this is another Kratos: its schemas are at {where}, and no identity that it lists"
            " is here; is KRATOS_ADMIN_URL right?"
        )

    def _await_consumers(self) -> None:
        polls = 0
        while self._reconciliations.in_flight(MOST_IN_FLIGHT) >= MOST_IN_FLIGHT:
            polls += 1
            if polls % POLLS_PER_WARNING == 0:
                log.warning("waiting_for_consumers", deliveries=f"{MOST_IN_FLIGHT:,} or more")
            if polls > MOST_POLLS:
                raise ConsumersAreBehind("for ten minutes consumers did not keep up")
            self._pause(POLL_SECONDS)

    def _check_deletes(self, run: Reconciliation, most: int) -> None:
        found, why = run.findings, None
        if found.held and not found.identities:
            why = "Kratos lists no identity"
        elif found.held and not found.known:
            why = "Kratos lists no identity that is held here"
        elif found.unlisted > most:
            why = (
                f"{found.unlisted:,} of {found.held:,} are not listed, and at most {most:,} may go"
            )
        if why and found.unlisted:
            run.end(f"refused: {why}")
            raise DeletesRefused(why)


def allowed(findings: Findings) -> int:
    """How many identities may be deleted without confirmation."""
    return max(ALWAYS_ALLOWED, findings.held // ALLOWED_PART)


def held_part(page: Page, ids: IdRange) -> Page:
    """Leave out identities of other deployments. It is the last page if only theirs follow.

    Raises ListingUnordered where the listing goes on after an empty page.
    """
    if page.next is not None and not page.identities.strip(b"[] \t\r\n"):
        raise ListingUnordered("Kratos' listing goes on after an empty page")
    if ids == ALL_IDS:
        return page
    try:
        listed, documents = ids_of(page.identities), documents_of(page.identities)
    except msgspec.ValidationError:  # an identity without an id: the comparison reports it
        return page
    held = [raw for each, raw in zip(listed, documents, strict=True) if each in ids]
    only_others_follow = listed and listed[-1] > ids.last
    return Page(b"[" + b",".join(held) + b"]", None if only_others_follow else page.next)


def ids_of(identities: bytes) -> list[UUID]:
    """The ids in a page of the listing. Raises msgspec.ValidationError where one is missing."""
    return [each.id for each in _read_ids(identities)]


class ForeignPage(NamedTuple):
    """A page whose schemas have other origins than ours: which, and the ids that it lists."""

    origins: tuple[str, ...]
    ids: tuple[UUID, ...]


class _WithId(msgspec.Struct, gc=False):
    id: UUID


class _Listed(_WithId):
    schema_url: Any = None


_read_ids: Final = msgspec.json.Decoder(list[_WithId]).decode
# One by one: an identity that cannot be read must not keep the others from being read.
documents_of: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read: Final = msgspec.json.Decoder(list[_Listed]).decode
_DEFAULT_PORTS: Final = {("http", 80), ("https", 443)}


def foreign_page(
    identities: bytes, ours: Collection[str], public_urls: Collection[str]
) -> ForeignPage | None:
    """Give the page if no schema of it has the origin of one of these URLs.

    An origin is scheme, host and port. None too where either side's origins are unknown.
    """
    try:
        listed = _read(identities)
    except msgspec.ValidationError:  # no list of identities: the comparison reports it
        return None
    known = {origin for url in ours if (origin := _origin(url))}
    theirs = {origin for each in listed if (origin := _origin(each.schema_url))}
    if not known or not theirs or theirs & {*known, *map(_origin, public_urls)}:
        return None
    return ForeignPage(tuple(sorted(theirs)), tuple(each.id for each in listed))


def _origin(url: object) -> str | None:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        port = parts and parts.port
    except ValueError:
        return None
    if parts is None or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = not port or (parts.scheme, port) in _DEFAULT_PORTS
    return f"{parts.scheme}://{host}{'' if is_default else f':{port}'}"
