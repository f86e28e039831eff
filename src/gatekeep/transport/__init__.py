"""Between the client and the worker: HTTP in, a hop out, and back.

_accept     connections of clients            _codec         what a codec is; how responses are framed and written
_http1      one connection                    _codec_strict  ours
_exchange   one request and its response      _spool         bodies in memory, then in a file
_front      the stages of a request           _codec_h11     ours, and h11 must agree
_dispatch   find a worker for it              _http_head     the strict scan of a request's head
_admission  … who is next                     _http_policy   what a head may ask for
_connect    … the connection to the group     _budget        how long a client may take
_hop        … the claim                       _http_body     the body's framing
_relay      carry both directions             _environ       the CGI part of the WSGI environ
_date       the Date field                    _wire, _claim, _backoff   the hop's messages; who has it; when to retry
"""
