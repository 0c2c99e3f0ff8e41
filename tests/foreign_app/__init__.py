"""An application with three consumers, for the whole test suite to run with.

`KRATOS_SYNC_APP=tests.foreign_app:app make test`: the tests say what our own consumers do, and have
to be right whatever else is subscribed.
"""

from kratos_sync import (
    AddressVerified,
    Application,
    IdentityDeleted,
    IdentityRegistered,
    IdentityTraitsChanged,
    KratosIdentityUpdated,
    serve,
)
from kratos_sync.domain.events import EVENTS
from tests.foreign_app.announcements import (
    Announcements,
    AnnouncementSettings,
    AnnounceNews,
    LoggedAnnouncements,
)
from tests.foreign_app.contacts import Contacts, KeepContacts, PostgresContacts
from tests.foreign_app.everything import NoticeEverything

app = Application(
    subscriptions={
        **{event: [NoticeEverything] for event in EVENTS.values()},
        KratosIdentityUpdated: [NoticeEverything, AnnounceNews],
        AddressVerified: [NoticeEverything, AnnounceNews],
        IdentityRegistered: [NoticeEverything, AnnounceNews, KeepContacts],
        IdentityTraitsChanged: [NoticeEverything, KeepContacts],
        IdentityDeleted: [NoticeEverything, KeepContacts],
    },
    adapters=[serve(Announcements).by(LoggedAnnouncements)],
    adapters_in_transaction=[serve(Contacts).by(PostgresContacts)],
    settings=AnnouncementSettings,
    migrations="tests.foreign_app:migrations",
)
