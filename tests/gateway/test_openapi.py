"""The API document is whole, valid, and costs nobody anything who does not ask for it."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from support import http
from support.inproc import running

import claude_peers
from claude_peers.broker.operations import OPERATIONS, peers
from claude_peers.core.errors import ClaudePeersError, NoBrokerError, SettingsError
from claude_peers.gateway import openapi
from claude_peers.gateway.errors import Refusal

GATEWAY = Path(openapi.__file__).parent
BY_PATH = {each.path: each for each in OPERATIONS}
LIGHT = """
import sys
import claude_peers.node.leader, claude_peers.gateway.server, claude_peers.stores.sqlite.store
heavy = ("gateway.openapi", "wire.schema", "wire.answers", "wire.user_answers")
print([name for name in heavy if f"claude_peers.{name}" in sys.modules])
"""


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(openapi.document())


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


def test_the_broker_serves_the_document_and_nothing_else_under_its_paths(broker, document):
    served = http.get(broker.port, "/openapi.json")
    assert (served.status, served.json()) == (200, document)
    assert served.headers["content-type"] == "application/json;charset=utf-8"
    assert set(document["paths"]) == {*broker.app._get, *BY_PATH, "/events", "/hook/{topic}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Via": "x"}, 401),
    ],
)
def test_the_document_is_guarded_like_everything_else(broker, headers, status):
    assert http.get(broker.port, "/openapi.json", headers).status == status


def test_the_document_is_valid_openapi(document):
    validate(document)


def test_nothing_of_it_is_loaded_by_a_broker_that_nobody_asks():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", BY_PATH)
def test_an_operation_says_what_it_takes_and_answers(document, path):
    told = document["paths"][path]["post"]
    assert told["summary"] == BY_PATH[path].summary
    assert told["requestBody"]["content"]["application/json"]["schema"]
    assert told["responses"]["200"]["content"]["application/json"]["schema"]
    assert openapi.answer_of(BY_PATH[path])


def test_a_hook_wants_its_token_or_a_signature_and_knows_repeated_posts_by_three_headers(document):
    told = document["paths"]["/hook/{topic}"]["post"]
    assert told["security"] == [{"hook": []}, {"hook-signature": []}]
    schemes = document["components"]["securitySchemes"]
    assert schemes["hook"]["scheme"] == "bearer"
    assert schemes["hook-signature"]["name"] == "X-Hub-Signature-256"
    assert [(each["name"], each["in"]) for each in told["parameters"]] == [
        ("topic", "path"), ("webhook-id", "header"), ("idempotency-key", "header"),
        ("x-github-delivery", "header"),
    ]  # fmt: skip
    (answer,) = told["responses"]["202"]["content"].values()
    assert answer["schema"] == {"$ref": "#/components/schemas/Hooked"}


@pytest.mark.bug("B4-25")
def test_an_operation_without_an_answer_is_noticed():
    async def serve(broker: Any, caller: Any, request: Any) -> Any:
        """Answer whatever it likes."""

    with pytest.raises(LookupError, match=r"/rename does not say what it answers"):
        openapi.answer_of(replace(peers.rename, serve=serve))


def test_every_field_that_a_record_explains_is_explained_in_the_document(document):
    fields = document["components"]["schemas"]["SendMessageRequest"]["properties"]
    assert fields["ttl_ms"]["description"].startswith("how long it is kept unread")
    times = document["components"]["schemas"]["Machine"]["properties"]
    assert times["invited_at"]["description"]


def codes_in(tree: ast.AST) -> set[str]:
    """Return the codes of the refusals that a module makes: a text without blanks, up front."""
    makers = {"Refusal", "_refusal", "_from_elsewhere"}
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
    named = [each for each in calls if isinstance(each.func, ast.Name | ast.Attribute)]
    return {
        given.value
        for call in named
        if (call.func.id if isinstance(call.func, ast.Name) else call.func.attr) in makers
        for given in call.args[:2]
        if isinstance(given, ast.Constant)
        and isinstance(given.value, str)
        and " " not in given.value
    }


def test_every_refusal_of_the_gateway_is_in_the_document():
    made = set().union(*(codes_in(ast.parse(each.read_text())) for each in GATEWAY.glob("*.py")))
    told = {code for codes in openapi.HEAD_REFUSALS.values() for code in codes}
    assert told == made | {"internal"}


def errors() -> set[type[ClaudePeersError]]:
    """Return the errors that are declared where requests are served."""
    found = set()
    for package in ("core", "broker", "stores", "gateway"):
        name = f"claude_peers.{package}."
        folder = Path(claude_peers.__file__).parent / package
        for module in pkgutil.walk_packages([str(folder)], name):
            for each in vars(importlib.import_module(module.name)).values():
                if isinstance(each, type) and issubclass(each, ClaudePeersError):
                    found.add(each)
    return found - {ClaudePeersError, NoBrokerError, SettingsError, Refusal}


def test_every_error_is_in_the_document_under_its_status(document):
    responses = document["components"]["responses"]
    for error in errors():
        assert f"`{error.code}`" in responses[str(error.http_status)]["description"], error
