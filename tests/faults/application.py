"""The application that the suite runs: its consumers leave effects, one after some trouble."""

from kratos_sync import Application, IdentityTraitsChanged, KratosIdentityUpdated, serve
from tests.faults.consumers import Effects, GetIntoTrouble, WriteEffect, WriteFactEffect
from tests.faults.effects import PostgresEffects

app = Application(
    subscriptions={
        KratosIdentityUpdated: [WriteEffect, GetIntoTrouble],
        IdentityTraitsChanged: [WriteFactEffect],
    },
    adapters_in_transaction=[serve(Effects).by(PostgresEffects)],
)
