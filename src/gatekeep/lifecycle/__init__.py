"""The lives of daemon processes, seen from outside.

_supervisor      starts, replaces, stops      _child     one process: what is known of it, the conversation
_heartbeat       looks after them             _control   what gateway and daemon say to each other
_process_state   the life of one, a table     _drain     its deadlines, and what is ordered then
_triggers        what ends a process          _turns     planned changes, one at a time
_recycle         what one may use up          _respawn   when to start again
_liveness        whether one is alive         _sleep     seats that nobody wants at the moment
_slots           the scoreboard they share    _reports, _postmortem   what is told of them
_watchdog        requests that do not end (asked by the daemon process itself)
"""
