"""Reconciling: whatever happened, what we hold becomes what Kratos lists."""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Final

import structlog

from kratos_sync.application.drift import elsewhere
from kratos_sync.application.ports.kratos import KratosAdmin, KratosRefused
from kratos_sync.application.ports.reconciliation import (
    Findings,
    ListingUnordered,
    NobodyKnown,
    Reconciliation,
    Reconciliations,
)

ALWAYS_ALLOWED: Final = 10
"""So many may be deleted without being asked,"""
ALLOWED_PART: Final = 100
"""or one of so many that are here, if that is more."""
ASKED_AT_ONCE: Final = 50
SAMPLE: Final = 20
"""Of whom we hold: so many are asked for where a listing begins with strangers."""
IN_HAND: Final = 2_000
"""Deliveries of what was found, with which no further page is asked for."""
POLL_SECONDS: Final = 0.1
TELL_EVERY: Final = 300
"""Polls after which it is said what is waited for,"""
MOST_POLLS: Final = 6_000
"""and after which nobody is waited for any more."""
BAD_REQUEST: Final = 400

log = structlog.get_logger()


class DeletesRefused(Exception):
    """Kratos shows too few of those whom we hold: nobody was deleted. The message says why."""


class ConsumersAreBehind(Exception):
    """What was found is not consumed: are workers running? What was told so far stays told."""


class AnotherKratos(Exception):
    """The listing is of another Kratos than ours: nothing was taken from it."""


class Reconcile:
    """Compares every page of Kratos' listing with what we hold, and then asks for the rest.

    A listing whose schemas are all elsewhere than those of whom we hold is another Kratos' one,
    but if they are at one of the ``public_urls``: so we are told that Kratos has moved. If it lists
    people whom we hold it has moved, or is a copy of ours, which the error says. Another Kratos'
    is a listing, too, that begins with nobody whom we hold, of a Kratos that has none of those whom
    it is asked for. From another Kratos nobody is taken.
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
        """Reconcile; give the reconciliation after each page, and after each round of questions.

        Raises KratosError, AnotherKratos, DeletesRefused, ListingUnordered, AnotherReconciliation,
        LedgerUnavailable, ConcurrencyConflict or ReconciliationLost; whatever it is, nobody is
        deleted of whom Kratos has not said by itself that it has none.
        """
        with self._reconciliations.begin(dry_run=dry_run) as run:
            yield run
            may_start_over = run.resumed
            while not run.listed:
                may_start_over &= self._take_page(
                    run, allow_deletes, dry_run=dry_run, may_start_over=may_start_over
                )
                yield run
            self._guard(run, max(allow_deletes, allowed(run.findings)))
            while unseen := run.unseen(ASKED_AT_ONCE):
                at = self._now()
                found = {each: self._kratos.find(each) for each in unseen}
                gone = [each for each, identity in found.items() if identity is None]
                run.settle(gone, [each for each in unseen if found[each] is not None], at)
                if gone and not dry_run:
                    self._wake_relay()
                yield run
            run.end("completed")
            yield run

    def _take_page(
        self, run: Reconciliation, allow_deletes: int, *, dry_run: bool, may_start_over: bool
    ) -> bool:
        """Take the next page; False if its token is of before, and Kratos no longer takes it."""
        at = self._now()
        try:
            page = self._kratos.page(run.token)
        except KratosRefused as error:
            if run.token is None or not may_start_over or error.status != BAD_REQUEST:
                raise
            run.start_over()
            return False
        if strange := elsewhere(page.identities, run.schema_urls, self._public_urls):
            where = ", ".join(strange.origins[:3])
            if run.knows(strange.ids):
                run.end("refused: Kratos has moved, or this is a copy of it")
                raise AnotherKratos(
                    f"it lists people who are here, and its schemas are now at {where}: if Kratos"
                    f" has moved, set KRATOS_PUBLIC_URL or KRATOS_BROWSER_URL to {where}; if this"
                    " is a copy of it, KRATOS_ADMIN_URL is wrong"
                )
            run.end("refused: another Kratos")
            raise AnotherKratos(
                f"this is another Kratos: its schemas are at {where}, and nobody whom it lists is"
                " here; is KRATOS_ADMIN_URL right?"
            )
        try:
            run.take(page, at, max(allow_deletes, ALWAYS_ALLOWED))
        except ListingUnordered:
            run.end("refused: the listing is not in order")
            raise
        except NobodyKnown as error:
            if not any(self._kratos.find(each) for each in run.some_held(SAMPLE)):
                run.end("refused: another Kratos")
                raise AnotherKratos(str(error)) from None
            run.is_ours = True
            return may_start_over  # the same page is taken once more
        if run.differences and not dry_run:
            self._wake_relay()
            self._await_consumers()
        return True

    def _await_consumers(self) -> None:
        polls = 0
        while self._reconciliations.in_flight(IN_HAND) >= IN_HAND:
            if polls % TELL_EVERY == TELL_EVERY - 1:
                log.warning("waiting_for_consumers", deliveries=f"{IN_HAND:,} or more")
            polls += 1
            if polls > MOST_POLLS:
                raise ConsumersAreBehind("for ten minutes consumers had their hands full")
            self._pause(POLL_SECONDS)

    def _guard(self, run: Reconciliation, most: int) -> None:
        found, why = run.findings, None
        if found.held and not found.identities:
            why = "Kratos lists nobody"
        elif found.held and not found.known:
            why = "Kratos lists nobody whom we hold"
        elif found.unseen > most:
            why = f"{found.unseen:,} of {found.held:,} are not listed, and at most {most:,} may go"
        if why and found.unseen:
            run.end(f"refused: {why}")
            raise DeletesRefused(why)


def allowed(findings: Findings) -> int:
    """How many may be deleted without asking."""
    return max(ALWAYS_ALLOWED, findings.held // ALLOWED_PART)
