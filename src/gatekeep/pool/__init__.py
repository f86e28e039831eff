"""Inside a daemon process, or in the front's own (`processes = 0`): connections of the front in, the application's answers out.

__main__    the program                      _pickup        read the envelope, claim the request
_daemon     start, signals, stop             _verdict       … or discard it
_loader     find the application             _input         wsgi.input
_listener   wait and accept                  _wsgi          call the application
_threads    who waits, who serves            _respond       start_response, write, frames
_patience   when to leave work to others     _disconnected  whether anybody still waits
_fork       children of the application      _hop           reads and writes, bounded by socket-timeout
_log        what it prints and logs        _monitor       end requests that do not end
_region     where it may be interrupted    _stacks        what a thread is doing, and sending it an exception
_setup      its shown name, folder, limits   _announce      tell the application's subscribers
_service    a connection, from pickup to end  _embedded, _inbox   the same threads in the front's process
_blocked    end a blocked system call      _syscalls, _peers   what it waits for, and who is at the other end
"""
