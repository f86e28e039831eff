"""Where requests come from when proxies stand before us: `_proxies` decides, this module asks it and logs what is odd."""

from __future__ import annotations

from collections.abc import Hashable

from gatekeep._events import DEBUG, Logger, says
from gatekeep._trust import Trust
from gatekeep.settings._http import HttpSettings
from gatekeep.transport._codec import Head
from gatekeep.transport._proxies import Origin, believe, shown, strip

REMEMBERED = 256
"""Peers that something is said of, each once: a stranger can be a new peer with every connection."""

SHOWN = 200
"""Characters of a field's value in the log."""


class Once:
    """Says each thing once, and that there are more where there are too many to remember. Pure but for the logger."""

    def __init__(self, log: Logger, most: int = REMEMBERED) -> None:
        self._log = log
        self._most = most
        self._said: set[Hashable] = set()
        self._is_full = False

    def warn(self, key: Hashable, event: str, **fields: object) -> None:
        """Say it at warning, if it is the first of its key; the others at debug."""
        if key in self._said:
            if says(self._log, DEBUG):
                self._log.debug(event, **fields)
        elif len(self._said) < self._most:
            self._said.add(key)
            self._log.warning(event, **fields)
        elif not self._is_full:
            self._is_full = True
            self._log.warning("proxies.not_all_named", last=event, named=self._most, **fields)


class Forwarding:
    """Tells requests' origins, by the settings."""

    def __init__(self, settings: HttpSettings, log: Logger) -> None:
        self._believes = settings.proxy_headers
        self._trust = Trust(settings.trusted_proxies)
        self._headers = settings.trusted_proxy_headers
        # Apart from each other: strangers who are many must not silence what is wrong with our own proxies.
        self._strangers, self._doubts = Once(log), Once(log)

    def origin(self, direct: Origin, head: Head, via: str | None) -> Origin:
        """Where a request comes from that has fields which a proxy would send.

        Args:
            direct: the connection's own.
            via: who has told that by the PROXY protocol, for the log; None where nobody has.
        """
        address = direct.client[0] if direct.client is not None else None
        if not self._believes or (via is not None and shown(direct.client) == via):
            # Nobody is believed; or the PROXY protocol has not told whom: it may be anybody.
            return strip(direct, head.fields)[0]
        if not self._trust.includes(address):
            origin, taken = strip(direct, head.fields)
            self._strangers.warn(
                # A proxy that introduces its clients is one peer, from whatever port it connects.
                address if via is None else via.rpartition(":")[0],
                "proxies.untrusted",
                peer=address,
                **({"via": via} if via is not None else {}),
                headers=sorted(set(taken)),
                action="stripped",
                setting=f"--trusted-proxies {address}",
            )
            return origin
        origin, doubts = believe(direct, head.fields, self._trust, self._headers)
        for doubt in doubts:
            self._doubts.warn(
                (address, doubt.header),
                "proxies.malformed",
                peer=address or "unix",
                header=doubt.header,
                value=doubt.value[:SHOWN],
            )
        return origin
