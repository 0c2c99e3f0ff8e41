"""A certificate authority of the tests' own, with a certificate for servers here and one for us."""

from pathlib import Path

import trustme


class Certificates:
    """Files of certificates and keys in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server, self.server_key = self._issue(authority, folder / "server", "127.0.0.1")
        self.client, self.client_key = self._issue(authority, folder / "client", "kratos-sync")

    def _issue(self, authority: trustme.CA, path: Path, name: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(name)
        certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
        issued.private_key_pem.write_to_path(key)
        for place, each in enumerate(issued.cert_chain_pems):
            each.write_to_path(certificate, append=place > 0)
        return certificate, key
