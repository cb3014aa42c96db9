"""OpenSSL stays out until somebody asks for it, and nothing is missing without it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")

LOAD = """
import json, sys
from claude_peers.host import lean
if sys.argv[1] == "none":
    lean._exists = lambda name: False
lean.load_without_openssl("asyncio", "hmac")
first = sorted({"ssl", "_hashlib"} & set(sys.modules))
import hashlib, hmac
digest = hmac.digest(b"key", b"text", "sha256").hex()
strong = hashlib.blake2b(b"text").hexdigest()
import _hashlib, ssl, asyncio
print(json.dumps({
    "first": first,
    "digest": digest == _hashlib.hmac_digest(b"key", b"text", "sha256").hex(),
    "strong": len(strong),
    "later": bool(ssl.create_default_context().get_ca_certs) and ssl.OPENSSL_VERSION,
}))
"""


def load(builtin: str) -> dict[str, object]:
    command = [sys.executable, "-c", LOAD, builtin]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)
    return dict(json.loads(done.stdout))


def test_asyncio_and_the_digests_come_without_openssl_and_it_can_still_be_had() -> None:
    found = load("all")

    assert found["first"] == []
    assert found["digest"] and found["strong"] == 128
    assert str(found["later"]).startswith("OpenSSL")


def test_a_python_without_digests_of_its_own_loads_openssl_as_ever() -> None:
    assert load("none")["first"] == ["_hashlib", "ssl"]
