"""Between the client and the worker: HTTP in, a hop out, and back.

_accept        connections of clients            _codec         what a codec is; how responses are framed and written
_introduction  … that begin with a PROXY header  _codec_strict  ours
_http1         one connection                    _codec_h11     ours, and h11 must agree
_exchange      one request and its response      _http_head     the strict scan of a request's head
_asgi, _guests the same of another server        _http_policy   what a head may ask for
_front         the stages of a request           _http_body     the body's framing
_route         which application it is for       _environ       the CGI part of the WSGI environ
_scripts       what scripts have to say of it    _forwarding, _proxies, _proxy_protocol   where it comes from
_dispatch      find a worker for it              _auth, _nonces   who asks, and what scripts' answers mean
_admission     … who is next                     _budget        how long a client may take
_connect       … the connection to the group     _spool         bodies in memory, then in a file
_hop           … the claim                       _probes, _error_page, _date   answers of the gateway's own
_relay         carry both directions             _notes         what records have beyond the usual
_wire, _claim, _backoff   the hop's messages; who has it; when to retry
"""
