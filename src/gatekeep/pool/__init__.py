"""Inside a daemon process: connections of the front in, the application's answers out.

__main__    the program                      _pickup    read the envelope, claim the request
_daemon     start, signals, stop             _input     wsgi.input
_loader     find the application             _wsgi      call the application
_listener   wait and accept                  _respond   start_response, write, frames
_threads    who waits, who serves            _log       what it prints and logs
_patience   when to leave work to others     _fork      children of the application
"""
