"""The lives of daemon processes, seen from outside.

_supervisor      starts, watches, stops       _control   what gateway and daemon say to each other
_process_state   the life of one, a table     _slots     the scoreboard that they share
_respawn         whether to start again
"""
