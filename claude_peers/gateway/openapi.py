"""The API reference as an OpenAPI 3.1 document, made from what the code declares.

Made when it is first asked for; nobody else loads any of this. Paths, fields and sentences come
from `broker.operations`, `wire.records` and `wire.answers`, errors from their classes. Only what
the head of a request is refused for is listed here, as it is decided in many places.
"""

import typing
from collections import defaultdict
from functools import cache
from types import ModuleType
from typing import Any, Final

from claude_peers import __version__
from claude_peers.broker import machines as broker_machines
from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.operations.registry import Answer, Operation
from claude_peers.core import errors as core_errors
from claude_peers.core import machines as core_machines
from claude_peers.core import webhooks as core_webhooks
from claude_peers.core.errors import ClaudePeersError, NoBrokerError, SettingsError
from claude_peers.gateway import openapi_events, openapi_hooks, places
from claude_peers.gateway.errors import REASONS, REFUSED_WITH_200, SECURITY_HEADERS
from claude_peers.gateway.upgrades import EVENTS_PATH, WS_PATH
from claude_peers.wire import (
    agentmesh_answers,
    answers,
    codec,
    frames,
    proof,
    signature,
    topic_answers,
    user_answers,
    webhook_answers,
)
from claude_peers.wire.agentmesh_answers import Card
from claude_peers.wire.schema import Schema, answer_schema, request_schema

JSON = "application/json"
PAGES: Final[dict[str, tuple[str, Any]]] = {
    "/": ("Greet, as upstream's broker does.", None),
    "/health": ("Tell that the broker is there.", user_answers.Health),
    "/status": ("Tell what the leading node does.", user_answers.Status),
    "/openapi.json": ("Return this document.", dict[str, Any]),
    "/agent-cards": ("Return the cards of the peers that are there.", list[Card]),
    **dict.fromkeys(
        ("/agent-card", "/.well-known/agent.json", "/.well-known/agent-card.json"),
        ("Return the broker's agent card.", Card),
    ),
}
"""What GET serves: what for, and the shape of the answer; None is plain text."""
HEAD_REFUSALS: Final[dict[int, tuple[str, ...]]] = {
    400: (
        "ambiguous_length", "bad_header", "bad_length", "bad_request_line", "bad_target",
        "bare_newline", "folded_header", "host_missing", "http_version", "incomplete_head",
        "not_http", "repeated_header", "wrong_authority",
    ),
    401: ("invalid_signature", "invalid_token", "not_local", "other_user", "proxied"),
    403: ("from_a_browser",),
    404: ("not_found",),
    405: ("method_not_allowed",),
    411: ("length_required",),
    413: ("body_too_large",),
    415: ("not_json", "not_text"),
    421: ("wrong_host",),
    426: ("upgrade_required",),
    431: ("head_too_large", "too_many_headers"),
    500: ("internal",),
}  # fmt: skip
"""Codes of what the gateway itself refuses (`gateway.guard`, `gateway.framing`), by status."""
_TAGS = ("node", "peers", "messages", "topics", "admin", "machines", "webhooks")
_LATER = (429, 503)
"""Statuses that may say when to try again."""
_NEVER_ANSWERED = (NoBrokerError, SettingsError)
"""Errors of clients."""
_FOR_PAGES = (400, 401, 403, 413, 421, 431, 500, 503)
_FOR_EVENTS = (*_FOR_PAGES[:3], 404, 405, 413, 421, 431, 500, 503)
_FOR_HOOKS = (*_FOR_PAGES[:3], 405, 409, 411, 413, 415, 421, 429, 431, 500, 503)
_FOR_OPERATIONS = (*_FOR_PAGES[:3], 404, 409, 411, 413, 415, 421, 429, 431, 500, 503)
_ABOUT = f"""\
Everything a program of the same user on this machine may ask of the broker: JSON over HTTP/1.1 on
127.0.0.1. A POST needs `Content-Type: application/json` and a `Content-Length`.

Bodies are read leniently, as clients of other implementations rely on it: fields that are not
known are passed over, null counts as absent, and where a text is wanted a number or a boolean does
(true is "1", 5.0 is "5").

An error has a stable `code`, a sentence, the remedy and, if it helps to wait, `retry_after` in
seconds (also in the header `Retry-After`). Web pages and proxies are refused.

GET {frames.LIVE_PATH} with `Upgrade: {frames.PROTOCOL}` becomes a live connection: one JSON object
a line, with the same requests and answers, and pushes. GET {WS_PATH} becomes a WebSocket with the
frames of agentmesh 0.4. See docs/api.md and docs/any-agent.md.
"""


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return codec.dumps(_document())


def answer_of(operation: Operation) -> Any:
    """Return the shape of what an operation answers, from its return annotation.

    Raises:
        LookupError: it does not say.
    """
    names = {
        "answers": answers,
        "agentmesh_answers": agentmesh_answers,
        "topic_answers": topic_answers,
        "user_answers": user_answers,
        "webhook_answers": webhook_answers,
        "Broker": object,
    }
    hints = typing.get_type_hints(operation.serve, {**_globals(operation), **names})
    shape = hints.get("return", Any)
    if typing.get_origin(shape) is Answer:
        (shape,) = typing.get_args(shape)
    if shape is Any:
        raise LookupError(f"{operation.path} does not say what it answers; see wire/answers.py")
    return shape


def _globals(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = getattr(operation.serve, "__globals__", {})
    return found


def _document() -> Schema:
    schemas: dict[str, Schema] = {}
    paths: dict[str, Schema] = {path: {"get": _page(path, schemas)} for path in PAGES}
    paths |= {each.path: {"post": _operation(each, schemas)} for each in OPERATIONS}
    usual = _refer(*(name for name, _ in SECURITY_HEADERS))
    paths[EVENTS_PATH] = {"get": openapi_events.described(_refuse(_FOR_EVENTS), usual)}
    hooked = {JSON: {"schema": answer_schema(webhook_answers.Hooked, schemas)}}
    published = _answer("Published", hooked, {})
    paths[openapi_hooks.PATH] = {"post": openapi_hooks.described(_refuse(_FOR_HOOKS), published)}
    responses = _refusals(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claude-peers",
            "version": __version__,
            "summary": "The broker's HTTP interface.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "the broker that serves this document"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": name} for name in _TAGS],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": responses,
            "headers": _headers(),
            "securitySchemes": _security_schemes(),
        },
    }


def _page(path: str, schemas: dict[str, Schema]) -> Schema:
    summary, shape = PAGES[path]
    schema = {"type": "string"} if shape is None else answer_schema(shape, schemas)
    headers = _refer(proof.PROOF_HEADER, proof.CHALLENGE_HEADER)
    content = {"text/plain" if shape is None else JSON: {"schema": schema}}
    return {
        "operationId": path.strip("/").replace(".", "-") or "greeting",
        "summary": summary,
        "tags": ["node"],
        "parameters": [
            {
                "name": proof.NONCE_HEADER,
                "in": "header",
                "description": "any text; then the broker proves itself in its answer's headers",
                "schema": {"type": "string"},
            }
        ],
        "responses": {"200": _answer("OK", content, headers), **_refuse(_FOR_PAGES)},
    }


def _operation(operation: Operation, schemas: dict[str, Schema]) -> Schema:
    name = operation.request.__name__
    body = request_schema(operation.request, operation.also)
    if not operation.also:  # other names belong to the operation, not to the record
        schemas[name], body = body, {"$ref": f"#/components/schemas/{name}"}
    told = answer_schema(answer_of(operation), schemas)
    if operation.path in REFUSED_WITH_200:
        told = {"anyOf": [told, answer_schema(answers.NotSent, schemas)]}
    described: Schema = {
        "operationId": operation.path.strip("/").replace("/", "-"),
        "summary": operation.summary,
        "tags": [getattr(operation.serve, "__module__", "").rpartition(".")[2]],
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": {
            "200": _answer("OK", {JSON: {"schema": told}}, {}),
            **_refuse(_FOR_OPERATIONS),
        },
    }
    return described | {"security": [{"proof": []}]} if operation.user else described


def _answer(text: str, content: Schema, headers: Schema) -> Schema:
    usual = _refer(*(name for name, _ in SECURITY_HEADERS))
    return {"description": text, "headers": usual | headers, "content": content}


def _refuse(statuses: tuple[int, ...]) -> Schema:
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}


def _refer(*headers: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _refusals(schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Return what an error's answer looks like, by status, with every code it may have."""
    told = {status: dict.fromkeys(codes, "") for status, codes in HEAD_REFUSALS.items()}
    by_status: defaultdict[int, dict[str, str]] = defaultdict(dict, told)
    for error in _errors(core_errors, core_machines, core_webhooks, broker_machines, places):
        by_status[error.http_status][error.code] = (error.__doc__ or "").partition("\n")[0]
    content = {JSON: {"schema": answer_schema(answers.Refused, schemas)}}
    return {
        str(status): _answer(
            "\n".join(
                [
                    f"{REASONS[status]}. Codes:\n",
                    *(f"- `{code}` {why}" for code, why in codes.items()),
                ]
            ),
            content,
            _refer("Retry-After") if status in _LATER else {},
        )
        for status, codes in sorted(by_status.items())
    }


def _errors(*modules: ModuleType) -> list[type[ClaudePeersError]]:
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, ClaudePeersError)
    }
    answered = found - {ClaudePeersError, *_NEVER_ANSWERED}
    return sorted(answered, key=lambda error: error.code)


def _headers() -> dict[str, Schema]:
    usual: dict[str, Schema] = {
        name: {"required": True, "schema": {"const": value}} for name, value in SECURITY_HEADERS
    }
    return usual | {
        "Retry-After": {
            "description": "whole seconds after which the same request may succeed",
            "schema": {"type": "integer", "minimum": 0},
        },
        proof.PROOF_HEADER: {
            "description": "epoch and HMAC-SHA-256, where a nonce was sent (wire/proof.py)",
            "schema": {"type": "string"},
        },
        proof.CHALLENGE_HEADER: {
            "description": "what this connection's client proves the secret over",
            "schema": {"type": "string"},
        },
    }


def _security_schemes() -> dict[str, Schema]:
    return openapi_hooks.SECURITY | {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A peer's token, from `/register`; from then on its id needs it.",
        },
        "proof": {
            "type": "apiKey",
            "in": "header",
            "name": proof.AUTH_HEADER,
            "description": (
                "Proof of the user's secret: the HMAC-SHA-256, in hexadecimal, under the secret "
                f"over `client`, a line feed and the challenge. GET any path with "
                f"`{proof.NONCE_HEADER}`, and `{proof.CHALLENGE_HEADER}` of the answer is good "
                "for the same connection."
            ),
        },
        "machine": {
            "type": "apiKey",
            "in": "header",
            "name": signature.HEADER,
            "description": (
                "How another machine that has joined signs each of its requests, inside TLS "
                "(wire/signature.py)."
            ),
        },
    }
