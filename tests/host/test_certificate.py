"""The certificate: made once, kept, and this user's alone."""

import os
import shutil
import subprocess
import sys

import pytest

from claude_peers.core.errors import StoreError
from claude_peers.host import certificate
from claude_peers.wire.tls import server_context

OPENSSL = shutil.which("openssl")


@pytest.fixture
def without_cryptography(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)


def test_it_is_made_once_and_kept(tmp_path):
    first = certificate.ensure(str(tmp_path))
    assert certificate.ensure(str(tmp_path)) == first
    assert len(first.pin) == 32
    assert os.stat(first.path).st_mode & 0o777 == 0o600
    server_context(first.path)


def test_another_folder_has_another_one(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    assert len({certificate.ensure(str(folder)).pin for folder in folders}) == 2


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl program")
@pytest.mark.usefixtures("without_cryptography")
def test_without_cryptography_openssl_makes_it_and_leaves_nothing_behind(tmp_path):
    shown = certificate.ensure(str(tmp_path))
    server_context(shown.path)
    assert os.listdir(tmp_path) == [certificate.NAME]
    told = subprocess.run(
        [OPENSSL, "x509", "-in", shown.path, "-noout", "-fingerprint", "-sha256", "-text"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.pin.hex() in told.replace(":", "").lower()
    assert "prime256v1" in told


@pytest.mark.usefixtures("without_cryptography")
def test_without_either_the_sentence_names_both(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="No certificate can be made") as refused:
        certificate.ensure(str(tmp_path))
    assert "openssl" in refused.value.remedy
    assert "cryptography" in refused.value.remedy
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("without_cryptography")
@pytest.mark.parametrize(
    ("program", "why"), [("echo bad luck >&2; exit 3", "bad luck"), ("exit 0", "No such file")]
)
def test_a_program_that_fails_is_quoted(tmp_path, monkeypatch, program, why):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "openssl").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "openssl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(StoreError, match=why):
        certificate.ensure(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    ["", "nothing", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"],
)
def test_a_damaged_file_is_told(tmp_path, content):
    path = tmp_path / certificate.NAME
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="holds no certificate"):
        certificate.ensure(str(tmp_path))


def test_a_key_that_others_may_read_is_not_used(tmp_path):
    os.chmod(certificate.ensure(str(tmp_path)).path, 0o644)
    with pytest.raises(StoreError, match="Others may read"):
        certificate.ensure(str(tmp_path))
