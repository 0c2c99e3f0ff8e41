"""The Admin API over TLS."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosRefused
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.programs import installed_program
from tests.waiting import DEADLINE_SECONDS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of loopback's, that nobody but itself vouches for."""
    openssl = installed_program("openssl", "openssl")
    file = tmp_path / "server.pem"
    asked = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kratos"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", tmp_path / "crt"]
    subprocess.run(
        [openssl, "req", *asked, *files], check=True, capture_output=True, timeout=DEADLINE_SECONDS
    )
    file.write_text(file.read_text() + (tmp_path / "crt").read_text())
    return file


@pytest.fixture
def kratos(certificate: Path) -> Iterator[AdminStandIn]:
    stand_in = AdminStandIn(InMemoryDocuments([person()]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stand_in._server.socket = context.wrap_socket(stand_in._server.socket, server_side=True)
    with stand_in:
        yield stand_in


def over_tls(stand_in: AdminStandIn) -> HttpKratosAdmin:
    return HttpKratosAdmin(SecretStr(stand_in.url.replace("http:", "https:")))


def test_an_untrusted_certificate_is_refused_at_once(kratos: AdminStandIn) -> None:
    admin = over_tls(kratos)

    with pytest.raises(KratosRefused, match="certificate"):
        admin.page(None)

    assert not kratos.seen


def test_the_environment_can_name_an_authority(
    kratos: AdminStandIn, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    admin = over_tls(kratos)

    assert len(admin.page(None).identities) > 100
    admin.close()
