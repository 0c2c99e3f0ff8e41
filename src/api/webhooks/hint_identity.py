"""`POST /kratos/sync-identity` where Kratos is asked again: a call is a hint, and no more."""

from api.webhooks.identity_body import read_identity
from api.webhooks.ordinary_body import subject_of
from api.webhooks.sync_identity import KratosIdentitySyncHandler
from application.ports.event_bus import Publishable
from domain.events import KratosIdentityHinted
from domain.identity import Identity


class KratosIdentityHintHandler(KratosIdentitySyncHandler):
    """Publishes KratosIdentityHinted with the id in the body, and nothing else of the person.

    The body is read as strictly, and the answers are the same.
    """

    def _heard(self, body: bytes) -> Publishable:
        subject = subject_of(body) or Identity.from_kratos(read_identity(body).identity).id
        return KratosIdentityHinted(self._new_id(), self._now(), subject)
