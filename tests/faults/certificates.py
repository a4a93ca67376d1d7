"""A certificate authority of our own, made with the ``openssl`` command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import attrs

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@attrs.frozen
class Certificate:
    """A certificate with its key."""

    pem: Path
    key: Path

    def install(self, folder: Path) -> None:
        """Put it where a server looks for its own."""
        shutil.copy(self.pem, folder / "server.pem")
        shutil.copy(self.key, folder / "server.key")


class Authority:
    """Signs certificates; who trusts its own one trusts them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._own = self.self_signed("authority", "keyUsage=critical,keyCertSign")

    @property
    def pem(self) -> Path:
        """The certificate to trust."""
        return self._own.pem

    def context(self) -> ssl.SSLContext:
        """Give what trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.pem))

    def self_signed(self, name: str, *extensions: str) -> Certificate:
        """Make a certificate that nobody else has signed."""
        made = self._files(name)
        extra = [word for extension in extensions for word in ("-addext", extension)]
        what = ("-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}", *extra)
        _openssl("req", *what, "-keyout", made.key, "-out", made.pem)
        return made

    def signed(self, name: str, *subjects: str, days: int = 2) -> Certificate:
        """Make a certificate for subjects such as ``IP:127.0.0.1``; -1 days for one expired."""
        made = self._files(name)
        request, extensions = made.pem.with_suffix(".csr"), made.pem.with_suffix(".ext")
        extensions.write_text(
            f"subjectAltName={','.join(subjects)}\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        _openssl(
            *("x509", "-req", "-days", str(days), "-in", str(request), "-out", str(made.pem)),
            *("-CA", str(self._own.pem), "-CAkey", str(self._own.key), "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        return made

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
