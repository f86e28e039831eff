"""What the front accepts: one verdict, whatever the codec and however the client cuts its bytes into packets.

Where Http11Probe (https://mda2av.github.io/Http11Probe) has the case, it has that test's id, so that results compare.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from gatekeep._errors import BodyLost, Refused
from gatekeep.transport import _environ
from gatekeep.transport._codec import Codec, Limits
from gatekeep.transport._codec_h11 import H11Codec
from gatekeep.transport._codec_strict import StrictCodec

CODECS = [StrictCodec, H11Codec]
LIMITS = Limits(body=100_000)
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"", start: bytes = b"POST / HTTP/1.1") -> bytes:
    return get(*lines, start=start) + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


# Each: id, what is sent, and the status of the refusal, or the body of a request that is accepted.
Case = tuple[str, bytes, int | bytes]

FRAMING: list[Case] = [
    ("COMP-POST-CL-BODY", post(b"Content-Length: 5", body=b"hello"), b"hello"),
    ("COMP-POST-CL-ZERO", post(b"Content-Length: 0"), b""),
    ("COMP-POST-NO-CL-NO-TE", post(), b""),
    ("COMP-GET-WITH-CL-BODY", get(b"Content-Length: 5") + b"hello", b"hello"),
    ("SMUG-CL-TE-BOTH", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TECL-PIPELINE", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), 400),
    ("SMUG-CL-COMMA-SAME", post(b"Content-Length: 4, 4", body=b"abcd"), 400),
    ("SMUG-CL-COMMA-DIFFERENT", post(b"Content-Length: 4, 5", body=b"abcd"), 400),
    ("SMUG-CL-COMMA-TRIPLE", post(b"Content-Length: 4,4,4", body=b"abcd"), 400),
    ("SMUG-DUPLICATE-CL", post(b"Content-Length: 4", b"Content-Length: 5", body=b"abcd"), 400),
    ("two equal Content-Lengths", post(b"Content-Length: 4", b"content-length: 4", body=b"abcd"), 400),
    ("RFC9112-6.1-CL-PLUS-SIGN", post(b"Content-Length: +4", body=b"abcd"), 400),
    ("RFC9112-6.1-CL-NON-NUMERIC", post(b"Content-Length: abc", body=b"abcd"), 400),
    ("SMUG-CL-NEGATIVE", post(b"Content-Length: -4", body=b"abcd"), 400),
    ("SMUG-CL-NEGATIVE-ZERO", post(b"Content-Length: -0"), 400),
    ("SMUG-CL-HEX-PREFIX", post(b"Content-Length: 0x4", body=b"abcd"), 400),
    ("SMUG-CL-OCTAL", post(b"Content-Length: 0o4", body=b"abcd"), 400),
    ("SMUG-CL-UNDERSCORE", post(b"Content-Length: 1_0", body=b"a" * 10), 400),
    ("SMUG-CL-INTERNAL-SPACE", post(b"Content-Length: 1 0", body=b"a" * 10), 400),
    ("a Content-Length in digits of another script", post(b"Content-Length: \xb2", body=b"ab"), 400),
    ("a Content-Length before a no-break space", post(b"Content-Length: 4\xa0", body=b"abcd"), 400),
    ("MAL-CL-EMPTY", post(b"Content-Length:", body=b"abcd"), 400),
    ("MAL-CL-TAB-BEFORE-VALUE", post(b"Content-Length:\t4", body=b"abcd"), b"abcd"),
    ("SMUG-CL-TRAILING-SPACE", post(b"Content-Length: 4 ", body=b"abcd"), b"abcd"),
    ("SMUG-CL-EXTRA-LEADING-SP", post(b"Content-Length:  4", body=b"abcd"), b"abcd"),
    ("SMUG-CL-LEADING-ZEROS, 18 digits", post(b"Content-Length: 000000000000000004", body=b"abcd"), b"abcd"),
    ("19 digits, zero-padded", post(b"Content-Length: 0000000000000000004", body=b"abcd"), 400),
    ("MAL-CL-OVERFLOW", post(b"Content-Length: 99999999999999999999"), 400),
    ("a declared length above the limit", post(b"Content-Length: 100001"), 413),
    ("the largest number of 18 digits", post(b"Content-Length: 999999999999999999"), 413),
    ("COMP-UNKNOWN-TE-501", post(b"Transfer-Encoding: gzip"), 501),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    ("SMUG-TE-IDENTITY without a length", post(b"Transfer-Encoding: identity"), 501),
    ("SMUG-TE-IDENTITY", post(b"Transfer-Encoding: identity", b"Content-Length: 4", body=b"abcd"), 400),
    ("SMUG-TE-NOT-FINAL-CHUNKED", post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 501),
    ("SMUG-TE-DOUBLE-CHUNKED", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 501),
    ("SMUG-TE-XCHUNKED", post(b"Transfer-Encoding: xchunked", b"Content-Length: 4", body=b"abcd"), 400),
    ("xchunked without a length", post(b"Transfer-Encoding: xchunked"), 501),
    ("SMUG-CHUNKED-WITH-PARAMS", post(b"Transfer-Encoding: chunked;ext=val", body=b"0\r\n\r\n"), 501),
    (
        "SMUG-TE-DUPLICATE-HEADERS",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
        400,
    ),
    (
        "identity, then chunked in two lines",
        post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    (
        "chunked twice in two lines",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    ("SMUG-TE-VTAB", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-FORMFEED", post(b"Transfer-Encoding: \x0cchunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-NULL", post(b"Transfer-Encoding: chunked\x00", body=b"0\r\n\r\n"), 400),
    ("a next line (\\x85) after chunked", post(b"Transfer-Encoding: chunked\x85", body=b"0\r\n\r\n"), 400),
    ("a no-break space before chunked", post(b"Transfer-Encoding: \xa0chunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-EMPTY-VALUE", post(b"Transfer-Encoding:", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-LEADING-COMMA", post(b"Transfer-Encoding: , chunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-TRAILING-COMMA", post(b"Transfer-Encoding: chunked,", body=b"0\r\n\r\n"), 400),
    ("a no-break space in a parameter", post(b"Transfer-Encoding: chunked;\xa0", body=b"0\r\n\r\n"), 400),
    ("a quoted coding", post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-TRAILING-SPACE", post(b"Transfer-Encoding: chunked ", body=b"0\r\n\r\n"), b""),
    ("SMUG-TE-TAB-BEFORE-VALUE", post(b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"), b""),
    ("SMUG-TE-CASE-MISMATCH", post(b"TRANSFER-encoding: Chunked", body=b"1\r\na\r\n0\r\n\r\n"), b"a"),
    (
        "SMUG-TE-HTTP10",
        post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", start=b"POST / HTTP/1.0"),
        400,
    ),
    ("SMUG-TE-SP-BEFORE-COLON", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), 400),
    ("SMUG-TE-OBS-FOLD", post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"), 400),
]

LINES: list[Case] = [
    ("a request without fields in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", b""),
    ("RFC9112-2.2-BARE-LF-REQUEST-LINE", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("RFC9112-2.2-BARE-LF-HEADER", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("a bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("LFs only", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("RFC9112-3-CR-ONLY-LINE-ENDING", b"GET / HTTP/1.1\rHost: a\r\r", 400),
    ("SMUG-BARE-CR-HEADER-VALUE", get(b"X: a\rb"), 400),
    ("a bare CR before the CRLF", get(b"X: a\r"), 400),
    ("a bare CR in the request line", get(start=b"GET /\r HTTP/1.1"), 400),
    ("MAL-NUL-IN-HEADER-VALUE", get(b"X: a\x00b"), 400),
    ("MAL-NUL-IN-URL", get(start=b"GET /\x00 HTTP/1.1"), 400),
    ("MAL-CONTROL-CHARS-HEADER", get(b"X: a\x01\x02b"), 400),
    ("a DEL in a value", get(b"X: a\x7fb"), 400),
    ("RFC9112-5.1-OBS-FOLD", get(b"X: a", b" b"), 400),
    ("folding with a tab", get(b"X: a", b"\tb"), 400),
    ("folding with nothing but white space", get(b"X: a", b" "), 400),
    ("COMP-WHITESPACE-BEFORE-HEADERS", get(host=b" Host: a\r\n"), 400),
    ("RFC9110-5.6.2-SP-BEFORE-COLON", get(b"X : a"), 400),
    ("NORM-TAB-IN-NAME", get(b"X\t: a"), 400),
    ("RFC9112-5-EMPTY-HEADER-NAME", get(b": a"), 400),
    ("RFC9112-5-INVALID-HEADER-NAME", get(b"X[]: a"), 400),
    ("RFC9112-5-HEADER-NO-COLON", get(b"X"), 400),
    ("MAL-NON-ASCII-HEADER-NAME", get(b"X\xe9: a"), 400),
    ("COMP-REQUEST-LINE-TAB", get(start=b"GET\t/ HTTP/1.1"), 400),
    ("RFC9112-3-MULTI-SP-REQUEST-LINE", get(start=b"GET  / HTTP/1.1"), 400),
    ("two spaces before the version", get(start=b"GET /  HTTP/1.1"), 400),
    ("a space after the version", get(start=b"GET / HTTP/1.1 "), 400),
    ("a space before the method", get(start=b" GET / HTTP/1.1"), 400),
    ("COMP-SPACE-IN-TARGET", get(start=b"GET /a b HTTP/1.1"), 400),
    ("COMP-VERSION-CASE", get(start=b"GET / http/1.1"), 400),
    ("RFC9112-2.3-INVALID-VERSION", get(start=b"GET / HTTP/9"), 400),
    ("HTTP/1.10", get(start=b"GET / HTTP/1.10"), 400),
    ("COMP-VERSION-MISSING-MINOR", get(start=b"GET / HTTP/1"), 400),
    ("COMP-VERSION-LEADING-ZEROS", get(start=b"GET / HTTP/01.1"), 400),
    ("COMP-VERSION-WHITESPACE", get(start=b"GET / HTTP/ 1.1"), 400),
    ("RFC9112-3-MISSING-TARGET", get(start=b"GET HTTP/1.1"), 400),
    ("an empty target", get(start=b"GET  HTTP/1.1"), 400),
    ("COMP-LEADING-CRLF", b"\r\n" + get(), b""),
    ("two empty lines before the request line", b"\r\n\r\n" + get(), 400),
    ("a bare LF before the request line", b"\n" + get(), 400),
    ("a bare CR before the request line", b"\r" + get(), 400),
    ("COMP-HTTP12-VERSION", get(start=b"GET / HTTP/1.2"), 505),
    ("HTTP/2.0", get(start=b"GET / HTTP/2.0"), 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("RFC9112-2.3-HTTP09-REQUEST", b"GET /\r\n", 400),
    ("HTTP/0.9", get(start=b"GET / HTTP/0.9"), 400),
    ("MAL-BINARY-GARBAGE", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("an SSH client", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    ("obs-text in a value", get(b"X: \x80\xff"), b""),
    ("an empty value", get(b"X:"), b""),
    ("a hundred fields", get(*[b"a: b"] * 99), b""),
    ("a hundred and one", get(*[b"a: b"] * 100), 431),
    ("MAL-MANY-HEADERS", get(*[b"a: b"] * 10_000), 431),
    ("MAL-LONG-METHOD", get(start=b"A" * 100_000 + b" / HTTP/1.1"), 414),
    ("MAL-LONG-HEADER-NAME", get(b"a" * 100_000 + b": b"), 431),
    ("MAL-LONG-HEADER-VALUE", get(b"a: " + b"b" * 100_000), 431),
    ("a value of white space", get(b"X: \t \t"), b""),
]

TARGETS: list[Case] = [
    ("COMP-LONG-URL-OK", get(start=b"GET /" + b"a" * 7900 + b" HTTP/1.1"), b""),
    ("MAL-LONG-URL", get(start=b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), 414),
    ("MAL-URL-BACKSLASH", get(start=b"GET /\\a HTTP/1.1"), b""),
    ("MAL-URL-PERCENT-NULL", get(start=b"GET /%00 HTTP/1.1"), b""),
    ("MAL-URL-PERCENT-CRLF", get(start=b"GET /%0d%0a HTTP/1.1"), b""),
    ("no leading slash", get(start=b"GET a HTTP/1.1"), 400),
    ("a host without a scheme", get(start=b"GET a:80/ HTTP/1.1"), 400),
    ("MAL-NON-ASCII-URL", get(start=b"GET /\xc3\xa9 HTTP/1.1"), 400),
    ("MAL-URL-OVERLONG-UTF8", get(start=b"GET /\xc0\xaf HTTP/1.1"), 400),
    ("a control in the target", get(start=b"GET /\x0b HTTP/1.1"), 400),
    ("a DEL in the target", get(start=b"GET /\x7f HTTP/1.1"), 400),
    ("RFC9112-3.2-FRAGMENT-IN-TARGET", get(start=b"GET /#a HTTP/1.1"), 400),
    ("COMP-OPTIONS-STAR", get(start=b"OPTIONS * HTTP/1.1"), b""),
    ("COMP-ASTERISK-WITH-GET", get(start=b"GET * HTTP/1.1"), 400),
    ("COMP-ABSOLUTE-FORM", get(start=b"GET http://a/b?c HTTP/1.1"), b""),
    ("an absolute-form with https", get(start=b"GET HTTPS://a HTTP/1.1"), b""),
    ("SMUG-ABSOLUTE-URI-HOST-MISMATCH", get(start=b"GET http://b/ HTTP/1.1"), b""),
    ("an absolute-form of another scheme", get(start=b"GET ftp://a/ HTTP/1.1"), 400),
    ("an absolute-form without a host", get(start=b"GET http:///b HTTP/1.1"), 400),
    ("an absolute-form with a port alone", get(start=b"GET http://:80/ HTTP/1.1"), 400),
    ("an absolute-form with user info", get(start=b"GET http://u@a/ HTTP/1.1"), 400),
    ("an absolute-form with a bad port", get(start=b"GET http://a:b/ HTTP/1.1"), 400),
    ("an absolute-form without a Host field", get(start=b"GET http://a/ HTTP/1.1", host=b""), 400),
    ("an absolute-form in HTTP/1.0", get(start=b"GET http://a/ HTTP/1.0", host=b""), b""),
    ("COMP-METHOD-CONNECT", get(start=b"CONNECT a:443 HTTP/1.1"), 501),
    ("CONNECT with any target", get(start=b"CONNECT / HTTP/1.1"), 501),
    ("COMP-METHOD-TRACE", get(start=b"TRACE / HTTP/1.1"), 405),
    ("COMP-METHOD-CASE", get(start=b"get / HTTP/1.1"), b""),
    ("COMP-UNKNOWN-METHOD", get(start=b"FOOBAR! / HTTP/1.1"), b""),
    ("a method that is no token", get(start=b"GE(T / HTTP/1.1"), 400),
]

FIELDS: list[Case] = [
    ("RFC9112-7.1-MISSING-HOST", get(host=b""), 400),
    ("COMP-HTTP10-NO-HOST", get(start=b"GET / HTTP/1.0", host=b""), b""),
    ("RFC9110-5.4-DUPLICATE-HOST", get(b"Host: b"), 400),
    ("COMP-DUPLICATE-HOST-SAME", get(b"HOST: a"), 400),
    ("two Hosts in HTTP/1.0", get(b"Host: a", start=b"GET / HTTP/1.0"), 400),
    ("COMP-HOST-EMPTY-VALUE, allowed by RFC 9112 §3.2", get(host=b"Host:\r\n"), b""),
    ("COMP-HOST-WITH-PATH", get(host=b"Host: a/b?c\r\n"), 400),
    ("COMP-HOST-WITH-USERINFO", get(host=b"Host: u@a\r\n"), 400),
    ("SMUG-MULTIPLE-HOST-COMMA", get(host=b"Host: a, b\r\n"), 400),
    ("a Host with a bad port", get(host=b"Host: a:8x\r\n"), 400),
    ("a Host with a port too high", get(host=b"Host: a:65536\r\n"), 400),
    ("a Host with an empty port", get(host=b"Host: a:\r\n"), b""),
    ("COMP-EXPECT-UNKNOWN", post(b"Expect: 200-ok", b"Content-Length: 1", body=b"a"), 417),
    ("SMUG-EXPECT-100-CL", post(b"Expect: 100-Continue", b"Content-Length: 1", body=b"a"), b"a"),
    (
        "an expectation in HTTP/1.0 is ignored",
        post(b"Expect: x", b"Content-Length: 1", body=b"a", start=b"POST / HTTP/1.0"),
        b"a",
    ),
    (
        "SMUG-TRANSFER_ENCODING",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        b"0\r\n\r\n",
    ),
    ("NORM-UNDERSCORE-CL", post(b"Content_Length: 99", b"Content-Length: 1", body=b"a"), b"a"),
]

CHUNKS: list[Case] = [
    ("COMP-CHUNKED-BODY", chunked(b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    ("COMP-CHUNKED-MULTI", chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), b"hello world"),
    ("COMP-CHUNKED-EMPTY", chunked(b"0\r\n\r\n"), b""),
    (
        "COMP-CHUNKED-HEX-UPPERCASE",
        chunked(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
        b"0123456789" * 2,
    ),
    ("COMP-CHUNKED-EXTENSION", chunked(b'5;a;b=c;d="e \\" f"\r\nhello\r\n0;z\r\n\r\n'), b"hello"),
    ("COMP-CHUNKED-TRAILER-VALID", chunked(b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n"), b"a"),
    ("sixteen digits", chunked(b"0000000000000001\r\na\r\n0\r\n\r\n"), b"a"),
    ("SMUG-CHUNK-HEX-PREFIX", chunked(b"0x1\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-SIZE-PLUS", chunked(b"+1\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-INVALID-SIZE-DESYNC", chunked(b"+0\r\n\r\n"), 400),
    ("SMUG-CHUNK-UNDERSCORE", chunked(b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-NEGATIVE", chunked(b"-1\r\na\r\n0\r\n\r\n"), 400),
    ("an empty chunk size", chunked(b"\r\na\r\n0\r\n\r\n"), 400),
    ("an extension without a size", chunked(b";a\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-LEADING-SP", chunked(b" 1\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-SIZE-TRAILING-OWS", chunked(b"1 \r\na\r\n0\r\n\r\n"), 400),
    ("white space before an extension", chunked(b"1 ;a\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-SPILL", chunked(b"5\r\nhelloXX\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-MISSING-TRAILING-CRLF", chunked(b"5\r\nhello0\r\n\r\n"), 400),
    ("a bare LF after a chunk", chunked(b"1\r\na\n0\r\n\r\n"), 400),
    ("a CR and something after a chunk", chunked(b"1\r\na\rX0\r\n\r\n"), 400),
    ("SMUG-CHUNK-LF-TERM", chunked(b"1\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-BARE-CR-TERM", chunked(b"1\ra\r\n0\r\n\r\n"), 400),
    ("MAL-CHUNK-SIZE-OVERFLOW", chunked(b"FFFFFFFFFFFFFFFFFF\r\n"), 400),
    ("seventeen digits, zero-padded", chunked(b"00000000000000001\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-BARE-SEMICOLON", chunked(b"1;\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-EXT-INVALID-TOKEN", chunked(b"1;[a\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-EXT-LF", chunked(b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-EXT-CR", chunked(b"1;a\rb\r\na\r\n0\r\n\r\n"), 400),
    ("SMUG-CHUNK-EXT-CTRL", chunked(b"1;a\x00b\r\na\r\n0\r\n\r\n"), 400),
    ("an LF in a quoted extension", chunked(b'1;a="\n"\r\na\r\n0\r\n\r\n'), 400),
    ("an extension that is too long", chunked(b"1;" + b"a" * 255 + b"\r\na\r\n0\r\n\r\n"), 400),
    ("the longest extension", chunked(b"1;" + b"a" * 254 + b"\r\na\r\n0\r\n\r\n"), b"a"),
    ("MAL-CHUNK-EXT-64K", chunked(b"1;" + b"a" * 65536 + b"\r\na\r\n0\r\n\r\n"), 400),
    ("endless zeros as a size", chunked(b"0" * 300), 400),
    ("SMUG-TRAILER-CL", chunked(b"0\r\nContent-Length: 1\r\n\r\n"), 400),
    ("SMUG-TRAILER-TE", chunked(b"0\r\ntransfer-encoding: chunked\r\n\r\n"), 400),
    ("SMUG-TRAILER-HOST", chunked(b"0\r\nHOST: b\r\n\r\n"), 400),
    ("SMUG-TRAILER-AUTH", chunked(b"0\r\nAuthorization: x\r\n\r\n"), b""),
    ("SMUG-CHUNK-LF-TRAILER", chunked(b"0\r\n\n"), 400),
    ("a trailer ended by a bare LF", chunked(b"0\r\nX: a\n\r\n"), 400),
    ("a trailer without a colon", chunked(b"0\r\nX\r\n\r\n"), 400),
    ("a folded trailer", chunked(b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    ("a NUL in a trailer", chunked(b"0\r\nX: \x00\r\n\r\n"), 400),
    ("a hundred trailers", chunked(b"0\r\n" + b"X: a\r\n" * 100 + b"\r\n"), b""),
    ("a hundred and one", chunked(b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n"), 431),
    ("the largest trailer", chunked(b"0\r\nX: " + b"a" * 8187 + b"\r\n\r\n"), b""),
    ("a trailer that is too large", chunked(b"0\r\nX: " + b"a" * 8188 + b"\r\n\r\n"), 431),
    ("trailers that are too large", chunked(b"0\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 3 + b"\r\n"), 431),
    ("a chunk above the body limit", chunked(b"186A1\r\n"), 413),
    ("chunks above the body limit", chunked(b"186A0\r\n" + b"a" * 100_000 + b"\r\n1\r\na\r\n"), 413),
    (
        "chunks up to the body limit",
        chunked(b"186A0\r\n" + b"a" * 100_000 + b"\r\n0\r\n\r\n"),
        b"a" * 100_000,
    ),
]

CASES = FRAMING + LINES + TARGETS + FIELDS + CHUNKS
REFUSED = [case for case in CASES if isinstance(case[2], int)]
ACCEPTED = [case for case in CASES if isinstance(case[2], bytes)]


def ids(cases: list[Case]) -> list[str]:
    return [case[0] for case in cases]


def serve(codec: Codec, pieces: Iterable[bytes]) -> Iterator[bytes | int]:
    """Act as a front that answers each complete request, and yield the bodies of those, or the status of the refusal."""
    body = None
    try:
        for piece in pieces:
            codec.receive(piece)
            while body is not None or codec.next_request() is not None:
                body = body or []
                while data := codec.read_body():
                    body.append(data)
                if not codec.body_complete:
                    break
                yield b"".join(body)
                body = None
                codec.start_response(200, "OK", [("Content-Length", "0")], date="", server="", close=False)
                if not codec.reusable:
                    return
                codec.next_cycle()
    except Refused as refusal:
        yield refusal.status


def by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "request_bytes", "expected"), CASES, ids=ids(CASES))
def test_a_request_gets_its_verdict_whole_and_byte_by_byte(
    codec: type[Codec], name: str, request_bytes: bytes, expected: int | bytes
) -> None:
    assert list(serve(codec(LIMITS), [request_bytes])) == [expected]
    if len(request_bytes) < 20_000:
        assert list(serve(codec(LIMITS), by_byte(request_bytes))) == [expected]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "request_bytes", "expected"), REFUSED, ids=ids(REFUSED))
def test_a_good_request_behind_a_bad_one_is_never_parsed(
    codec: type[Codec], name: str, request_bytes: bytes, expected: int
) -> None:
    for pieces in ([request_bytes + GOOD], [request_bytes, GOOD], [GOOD + request_bytes, GOOD]):
        condemned = codec(LIMITS)
        served = list(serve(condemned, pieces))
        assert served == ([b"", expected] if pieces[0].startswith(GOOD) else [expected])
        condemned.receive(GOOD)
        with pytest.raises(Refused):
            condemned.next_request()
        with pytest.raises(Refused):
            condemned.read_body()
        assert condemned.buffered == 0
        assert not condemned.reusable


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "request_bytes", "expected"), ACCEPTED, ids=ids(ACCEPTED))
def test_an_accepted_request_ends_where_the_next_begins(
    codec: type[Codec], name: str, request_bytes: bytes, expected: bytes
) -> None:
    served = list(serve(codec(LIMITS), [request_bytes + GOOD]))
    assert served == ([expected, b""] if b"HTTP/1.0" not in request_bytes else [expected])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "request_bytes", "expected"), ACCEPTED, ids=ids(ACCEPTED))
def test_a_request_that_is_cut_anywhere_is_never_complete(
    codec: type[Codec], name: str, request_bytes: bytes, expected: bytes
) -> None:
    for end in range(min(len(request_bytes), 600)):
        cut = codec(LIMITS)
        cut.receive(request_bytes[:end])
        cut.receive(b"")
        if cut.next_request() is None:
            assert not cut.body_complete
            continue
        with pytest.raises(BodyLost):
            while not cut.body_complete:
                cut.read_body()
        with pytest.raises(BodyLost):
            cut.next_request()
        assert not cut.reusable


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "header",
    b"Host Content-Length Transfer-Encoding Connection Expect Content-Type Cookie Proxy Upgrade X-A X_A".split(),
)
def test_random_bytes_in_a_header_are_refused_or_harmless(codec: type[Codec], header: bytes) -> None:
    chance = random.Random(header)
    alphabets = [bytes(range(256)), b'0123456789abcdef:;,.-_ \t"[]%@/', b"chunked,close-10 \x0b\x85\xa0"]
    statuses: set[int] = set()
    for _ in range(150):
        value = bytes(chance.choices(chance.choice(alphabets), k=chance.randrange(12)))
        seen = codec(LIMITS)
        seen.receive(b"GET / HTTP/1.1\r\n" + header + b": " + value + b"\r\n\r\n")
        if header != b"Host":
            seen = codec(LIMITS)
            seen.receive(get(header + b": " + value))
        try:
            head = seen.next_request()
        except Refused as refusal:
            statuses.add(refusal.status)
            continue
        assert head is not None
        environ = _environ.build(head, scheme="http", client=None, server=("a", "80"))
        assert "HTTP_PROXY" not in environ
        assert not {"\r", "\n", "\0"} & set("".join(environ.values()))
    assert statuses <= {400, 413, 417, 501}
