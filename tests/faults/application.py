"""The application that the suite runs: its consumers leave effects, one after some trouble."""

from kratos_sync import (
    Application,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityTraitsChanged,
    KratosIdentityUpdated,
    serve,
)
from tests.faults.consumers import (
    Effects,
    Elsewhere,
    GetIntoTrouble,
    KeepOrder,
    WriteEffect,
    WriteElsewhere,
    WriteFactEffect,
)
from tests.faults.effects import FileElsewhere, PostgresEffects

app = Application(
    subscriptions={
        KratosIdentityUpdated: [WriteEffect, GetIntoTrouble, KeepOrder, WriteElsewhere],
        IdentityRegistered: [KeepOrder],
        IdentityDiscovered: [KeepOrder],
        IdentityTraitsChanged: [WriteFactEffect, KeepOrder],
    },
    adapters=[serve(Elsewhere).by(FileElsewhere)],
    adapters_in_transaction=[serve(Effects).by(PostgresEffects)],
)
