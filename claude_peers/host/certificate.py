"""The certificate by which other machines know this user's broker.

Self-signed, EC P-256, made once in the state folder and kept across take-overs: machines are
invited by its SHA-256, and by nothing else. So its dates and names mean nothing.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Final

from claude_peers.core.errors import StoreError
from claude_peers.host import files

NAME: Final = "tls.pem"
_DAYS: Final = 36500
_WITHIN: Final = 20.0
"""Seconds that the openssl program may take."""
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and its certificate.

    Attributes:
        path: the file that holds both, in PEM.
        pin: SHA-256 of the certificate in DER.
    """

    path: str
    pin: bytes


def ensure(folder: str) -> Certificate:
    """Return the certificate of a state folder, made by the first process of all that ask at once.

    Raises:
        StoreError: it cannot be made, is not private, or damaged.
    """
    path = os.path.join(folder, NAME)
    if files.read_private(path) is None:
        files.offer_private(path, make(folder))
    found = _PEM.search(files.read_private(path) or b"")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
    except ValueError:
        der = b""
    if not der:
        raise StoreError(
            f"{path} holds no certificate",
            "Delete it and start again: a new one is made, and machines have to be invited anew.",
        )
    return Certificate(path, hashlib.sha256(der).digest())


def make(folder: str) -> bytes:
    """Return a new key and certificate in PEM; `folder` is where a program may write drafts.

    Raises:
        StoreError: there is nothing that makes them.
    """
    try:
        return _by_cryptography()
    except ImportError:
        return _by_openssl(folder)


def _by_cryptography() -> bytes:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "claude-peers")])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_DAYS))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return secret + built.public_bytes(serialization.Encoding.PEM)


def _by_openssl(folder: str) -> bytes:
    program = shutil.which("openssl")
    if program is None:
        raise StoreError(
            "No certificate can be made, and without one no other machine can know this broker",
            "Install openssl, or Python's cryptography (pip install cryptography).",
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="tls-") as draft:
        key, certificate = (os.path.join(draft, name) for name in ("key", "certificate"))
        words = [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-sha256", "-days", str(_DAYS), "-subj", "/CN=claude-peers"),
            *("-keyout", key, "-out", certificate),
        ]
        try:
            subprocess.run(words, check=True, capture_output=True, timeout=_WITHIN)  # noqa: S603 - our own words
            parts = [_content(each) for each in (key, certificate)]
        except (OSError, subprocess.SubprocessError) as error:
            raise StoreError(
                f"{program} made no certificate: {_why(error)}",
                "Run it by hand to see why, or install Python's cryptography.",
            ) from error
    return b"".join(parts)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _why(error: Exception) -> str:
    told = getattr(error, "stderr", None) or b""
    return told.decode("utf-8", "replace").strip().rpartition("\n")[2] or str(error)
