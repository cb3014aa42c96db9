"""A request's head has one reading, or none."""

import string

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.gateway.errors import Refusal
from claude_peers.gateway.framing import HEAD, HEADERS, check, head_end

HOST = b"Host: 127.0.0.1:7899\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST
POST = b"POST /send-message HTTP/1.1\r\n" + HOST

REFUSED = {
    "a line feed alone ends a line": (GET + b"A: b\nC: d\r\n\r\n", 400, "bare_newline"),
    "a line feed alone ends the head": (GET + b"\n", 400, "bare_newline"),
    "a carriage return inside a line": (GET + b"A: b\rc\r\n\r\n", 400, "bare_newline"),
    "a folded header": (GET + b"A: b\r\n c\r\n\r\n", 400, "folded_header"),
    "a header folded with a tab": (GET + b"A: b\r\n\tc\r\n\r\n", 400, "folded_header"),
    "a fold before any header": (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400, "folded_header"),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", 411, "length_required"),
    "any transfer coding": (GET + b"transfer-encoding: identity\r\n\r\n", 411, "length_required"),
    "chunks and a length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        400,
        "ambiguous_length",
    ),
    "two lengths": (
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        "repeated_header",
    ),
    "the same length twice": (
        POST + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\n",
        400,
        "repeated_header",
    ),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\n", 400, "bad_length"),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400, "bad_length"),
    "a signed length": (POST + b"Content-Length: +1\r\n\r\n", 400, "bad_length"),
    "a hexadecimal length": (POST + b"Content-Length: 0x10\r\n\r\n", 400, "bad_length"),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400, "bad_length"),
    "a length in other digits": (POST + b"Content-Length: \xb2\r\n\r\n", 400, "bad_length"),
    "a length beyond counting": (
        POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n",
        400,
        "bad_length",
    ),
    "an absolute target for another host": (
        b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n",
        400,
        "wrong_authority",
    ),
    "an absolute target with a user": (
        b"GET http://u@127.0.0.1:7899/ HTTP/1.1\r\n" + HOST + b"\r\n",
        400,
        "wrong_authority",
    ),
    "an absolute target without a host": (
        b"GET http://127.0.0.1:7899/ HTTP/1.0\r\n\r\n",
        400,
        "wrong_authority",
    ),
    "a target of another scheme": (
        b"GET ftp://127.0.0.1:7899/ HTTP/1.1\r\n" + HOST + b"\r\n",
        400,
        "bad_target",
    ),
    "a tunnel": (b"CONNECT 127.0.0.1:7899 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_target"),
    "a star that is no question": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_target"),
    "HTTP/0.9 without a version": (b"GET /health\r\n\r\n", 400, "http_version"),
    "HTTP/0.9": (b"GET /health HTTP/0.9\r\n" + HOST + b"\r\n", 400, "http_version"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", 400, "http_version"),
    "a version in lower case": (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400, "http_version"),
    "two spaces": (b"GET  /health HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "one word": (b"GET\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "a fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "a target in Latin-1": (b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "a method with a colon": (b"GE:T / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request_line"),
    "an empty first line": (b"\r\n" + GET + b"\r\n", 400, "not_http"),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "not_http"),
    "two hosts": (GET + b"Host: evil.example\r\n\r\n", 400, "repeated_header"),
    "two types": (
        POST + b"Content-Type: text/plain\r\nContent-Type: application/json\r\n\r\n",
        400,
        "repeated_header",
    ),
    "two tokens": (
        GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        400,
        "repeated_header",
    ),
    "an absolute target in HTTP/1.0": (
        b"GET http://x/ HTTP/1.0\r\n\r\n",
        400,
        "wrong_authority",
    ),
    "no host": (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 400, "host_missing"),
    "no headers at all": (b"GET / HTTP/1.1\r\n\r\n", 400, "host_missing"),
    "a space before the colon": (GET + b"Content-Length : 5\r\n\r\n", 400, "bad_header"),
    "a header without a colon": (GET + b"Nonsense\r\n\r\n", 400, "bad_header"),
    "a header without a name": (GET + b": b\r\n\r\n", 400, "bad_header"),
    "a zero byte": (GET + b"A: b\0c\r\n\r\n", 400, "bad_header"),
    "a control character": (GET + b"A: b\x1bc\r\n\r\n", 400, "bad_header"),
    "a delete character": (GET + b"A: b\x7fc\r\n\r\n", 400, "bad_header"),
    "a vertical tab": (GET + b"A: b\x0bc\r\n\r\n", 400, "bad_header"),
    "too many headers": (GET + b"A: b\r\n" * HEADERS + b"\r\n", 431, "too_many_headers"),
    "too many bytes": (GET + b"A: " + b"b" * HEAD + b"\r\n\r\n", 431, "head_too_large"),
}  # fmt: skip

ACCEPT = b"User-Agent: Bun/1.4.5\r\nAccept: */*\r\n"
ENCODING = b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
JSON = b"Content-Type: application/json\r\n"
BEARER = b"Authorization: Bearer " + b"0f" * 32 + b"\r\n"
KEEP = b"Connection: keep-alive\r\n"
CLIENTS = {
    "upstream asks for health": b"GET /health HTTP/1.1\r\n" + KEEP + ACCEPT + HOST + ENCODING,
    "upstream posts": b"POST /poll-messages HTTP/1.1\r\n"
    + JSON + KEEP + ACCEPT + HOST + ENCODING + b"Content-Length: 17\r\n",
    "agentmesh posts with its token": b"POST /peek-messages HTTP/1.1\r\n"
    + BEARER + JSON + KEEP + ACCEPT + HOST + ENCODING + b"Content-Length: 17\r\n",
    "agentmesh upgrades": b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "curl": b"POST /send-message HTTP/1.1\r\n" + HOST + b"User-Agent: curl/8.9\r\nAccept: */*\r\n"
    + JSON + b"Content-Length: 2000\r\nExpect: 100-continue\r\n",
}  # fmt: skip


def refused(head):
    """Return the refusal of a head, from whichever of the two functions it comes."""
    with pytest.raises(Refusal) as caught:
        check(head[: head_end(head)])
    return caught.value


def parsed(head):
    """Return method, target, version and headers as h11 reads them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    headers: dict[str, str] = {}
    for raw, value in event.headers:
        name, text = raw.decode(), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return event.method.decode(), event.target.decode(), event.http_version.decode(), headers


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.threat("T25")
def test_a_head_with_two_readings_is_refused(case):
    head, status, code = REFUSED[case]
    refusal = refused(head)
    assert (refusal.http_status, refusal.code) == (status, code)
    assert refusal.fact and refusal.remedy.endswith(".")


@pytest.mark.parametrize("case", REFUSED)
def test_check_alone_refuses_too(case):
    with pytest.raises(Refusal):
        check(REFUSED[case][0])


@pytest.mark.parametrize("case", CLIENTS)
def test_the_heads_of_known_clients_pass_and_read_as_h11_reads_them(case):
    head = CLIENTS[case] + b"\r\n"
    assert head_end(head + b'{"id":"abcdefgh"}') == len(head)
    read = check(head)
    assert parsed(head) == (read.method, read.target, read.version, read.headers)
    assert read.keep_alive


def test_chunks_are_refused_with_the_remedy():
    refusal = refused(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    assert "Content-Length" in refusal.remedy


@pytest.mark.parametrize("cut", range(1, len(GET + b"\r\n")))
def test_an_incomplete_head_is_waited_for(cut):
    assert head_end(bytearray((GET + b"\r\n")[:cut])) is None


def test_an_empty_buffer_is_waited_for():
    assert head_end(b"") is None


def test_a_head_without_an_end_is_refused_at_the_limit():
    head = GET + b"A: "
    assert head_end(head + b"b" * (HEAD - 1 - len(head))) is None
    assert refused(head + b"b" * (HEAD - len(head))).http_status == 431


def test_a_head_of_exactly_the_limit_passes():
    head = GET + b"A: " + b"b" * (HEAD - len(GET) - 7) + b"\r\n\r\n"
    assert head_end(head) == HEAD == len(head)
    assert check(head).path == "/health"


def test_a_nonsense_first_line_is_refused_before_the_head_ends():
    with pytest.raises(Refusal) as caught:
        head_end(b"GET /health\r\n")
    assert caught.value.code == "http_version"


def test_a_body_may_hold_what_a_head_may_not():
    head = POST + b"Content-Length: 4\r\n\r\n"
    assert head_end(head + b"\n\r\n\n") == len(head)


def test_a_head_without_its_empty_line_is_refused():
    with pytest.raises(Refusal) as caught:
        check(GET)
    assert caught.value.code == "incomplete_head"
    assert caught.value.fact


@pytest.mark.parametrize("look", [check, head_end])
@pytest.mark.parametrize("line", [b"A: b\nC: d", b"A\n"])
def test_a_bare_line_feed_is_seen_wherever_one_looks(look, line):
    with pytest.raises(Refusal) as caught:
        look(GET + line + b"\r\n\r\n")
    assert caught.value.code == "bare_newline"


def test_a_head_holds_32_kilobytes_and_a_hundred_headers():
    assert (HEAD, HEADERS) == (32_768, 100)
    assert len(check(GET + b"A: b\r\n" * (HEADERS - 1) + b"\r\n").headers) == 2


@pytest.mark.parametrize("character", [chr(code) for code in range(256)])
def test_a_name_is_made_of_the_characters_that_rfc_9110_allows(character):
    allowed = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
    head = GET + f"x{character}x: b\r\n\r\n".encode("latin-1")
    if character == ":":
        assert check(head).headers["x"] == "x: b"
    elif character in allowed:
        assert check(head).headers[f"x{character}x".lower()] == "b"
    else:
        with pytest.raises(Refusal):
            check(head)


def test_a_target_holds_every_visible_character_but_the_mark_of_a_fragment():
    visible = "".join(chr(code) for code in range(0x21, 0x7F)).replace("#", "").replace("?", "")
    assert check(f"GET /{visible} HTTP/1.1\r\n".encode() + HOST + b"\r\n").path == f"/{visible}"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/list-peers", "/list-peers"),
        (b"/subscribe?id=a?b", "/subscribe"),
        (b"?x", None),
        (b"http://127.0.0.1:7899", "/"),
        (b"HTTP://127.0.0.1:7899/health?a=/b", "/health"),
        (b"http://127.0.0.1:7899?x", "/"),
    ],
)
def test_the_path_is_the_target_without_authority_and_query(target, path):
    head = b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    if path is None:
        assert refused(head).code == "bad_target"
    else:
        assert check(head).path == path
        assert check(head).target == target.decode()


def test_a_star_is_what_options_may_ask_for():
    assert check(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n").path == "*"


def test_repeated_headers_without_weight_are_joined():
    assert check(GET + b"A: b\r\na: c\r\n\r\n").headers["a"] == "b, c"


def test_a_value_loses_blanks_around_it_and_nothing_else():
    assert check(GET + b"A: \t b\xa0 \r\nB:\r\n\r\n").headers["a"] == "b\xa0"


@pytest.mark.parametrize(
    ("line", "more", "kept"),
    [
        (b"GET / HTTP/1.1\r\n", b"", True),
        (b"GET / HTTP/1.1\r\n", b"Connection: Close\r\n", False),
        (b"GET / HTTP/1.1\r\n", b"Connection: upgrade, close\r\n", False),
        (b"GET / HTTP/1.0\r\n", b"", False),
    ],
)
def test_the_connection_is_kept_unless_version_or_header_end_it(line, more, kept):
    assert check(line + HOST + more + b"\r\n").keep_alive is kept


@pytest.mark.parametrize(("line", "size"), [(b"", 0), (b"Content-Length: 0042\r\n", 42)])
def test_the_length_of_the_body_is_read(line, size):
    assert check(POST + line + b"\r\n").content_length == size


def test_http_1_0_needs_no_host():
    assert check(b"GET / HTTP/1.0\r\n\r\n").headers == {}


PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"\0", b"\x80", b"5", b"-1", b"#"),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", HOST, b"http://"),
    ]
)
VALUE = st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte > 31))
NAME = st.text("AbcXyz-_!09", min_size=1, max_size=8).map(str.encode)
LINE = st.tuples(NAME, VALUE).map(lambda pair: pair[0] + b":" + pair[1] + b"\r\n")
FIRST = st.tuples(
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"x"]),
    st.sampled_from([b"/", b"/a?b", b"*", b"http://127.0.0.1:7899/x", b"//x"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]),
).map(lambda parts: b" ".join(parts) + b"\r\n")
HEADS = st.tuples(FIRST, st.lists(LINE, max_size=4)).map(
    lambda parts: parts[0] + HOST + b"".join(parts[1]) + b"\r\n"
)
MUTATED = st.tuples(HEADS, st.integers(0, 120), PIECES).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
)


@settings(max_examples=400, deadline=None, database=None)
@given(st.one_of(HEADS, MUTATED, st.binary(max_size=80)))
@pytest.mark.threat("T25")
def test_what_passes_reads_the_same_to_h11_and_the_rest_is_a_refusal(stream):
    try:
        end = head_end(stream)
        read = check(stream[: len(stream) if end is None else end])
    except Refusal:
        return
    assert end is not None
    assert parsed(stream[:end]) == (read.method, read.target, read.version, read.headers)
