"""Between the client and the worker: HTTP in, a hop out, and back.

_accept     connections of clients           _codec        requests and responses as bytes, behind one interface
_http1      one connection                   _codec_h11    … by h11
_front      the stages of a request          _http_head    the strict scan of a request's head
_dispatch   find a worker for it             _http_policy  what a head may ask for
_connect    … the connection to the group    _http_body    the body's framing
_hop        … the claim                      _environ      the CGI part of the WSGI environ
_relay      carry both directions            _wire, _claim, _backoff   what front and worker say; who has the request; when to retry
"""
