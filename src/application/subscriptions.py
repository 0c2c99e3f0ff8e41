"""The service's own consumers; an application adds others in its own package."""

from typing import Final

from kratos_sync.application.application import Table
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import (
    IdentityDeletionRequested,
    IdentityRegistered,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)

SUBSCRIPTIONS: Final[Table] = {
    KratosIdentityUpdated: (SyncKratosIdentity,),
    KratosIdentityGone: (DeleteKratosIdentity,),
    KratosIdentityHinted: (FetchKratosIdentity,),
    IdentityRegistered: (CountRegistrations,),
    IdentityDeletionRequested: (ForgetIdentity, DeleteFromKratos),
}
