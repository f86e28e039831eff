"""Inside a daemon process, or in the front's own (`processes = 0`): connections of the front in, the application's answers out.

__main__    the program                       _pickup        read the envelope, claim the request
_daemon     start, signals, stop              _verdict       … or discard it
_control    the gateway's word                _input         wsgi.input
_setup      its shown name, folder, limits    _wsgi          call the application
_loader     find the application              _respond       start_response, write, frames
_applications  … all of them                  _disconnected  whether anybody still waits
_script     whether it has changed            _monitor       end requests that do not end
_listener   wait and accept                   _hop           … reads and writes, bounded by socket-timeout
_threads    who waits, who serves             _region        … where that may be done
_patience   when to leave work to others      _stacks        what a thread is doing, and sending it an exception
_service    a connection, from pickup to end  _blocked       end a blocked system call
_announce   tell the application's hooks      _syscalls, _peers   what it waits for, and who is at the other end
_log        what it prints and logs           _fork          children of the application
_memory     how much it has grown
_embedded, _inbox   the same threads in the front's process
"""
