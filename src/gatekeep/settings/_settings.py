"""Everything a gateway needs to know. Pure.

Nothing is silently corrected: what cannot be is refused with a `SettingsError` that names the setting, its value and what is
allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from gatekeep._errors import SettingsError
from gatekeep._trust import trusts_everyone
from gatekeep.settings._app import AppTarget, check_reachable
from gatekeep.settings._bind import DEFAULT_PORT, Bind, BindKind, binds_of, health_binds_of
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._mount import MountSettings
from gatekeep.settings._reload import ReloadSettings
from gatekeep.settings._spec import Alias, Spec, never_if_zero, setting

T = TypeVar("T")

APACHE_TIMEOUT = 60.0
"""Seconds: the default of Apache's Timeout, which in embedded mode governs what socket-timeout and its kin do otherwise."""


def _groups(value: Iterable[GroupSettings]) -> tuple[GroupSettings, ...]:
    return _all_of("groups", value, GroupSettings)


def _mounts(value: Iterable[MountSettings]) -> tuple[MountSettings, ...]:
    return _all_of("mounts", value, MountSettings)


def _all_of(name: str, value: Iterable[T], kind: type[T]) -> tuple[T, ...]:
    """Programs give these, so they may be anything."""
    each = tuple(value) if isinstance(value, Iterable) else None
    if each is None or not all(isinstance(item, kind) for item in each):
        raise SettingsError(f"{name} = {value!r}: a list of gatekeep.{kind.__name__} is needed")
    return each


@attrs.frozen(kw_only=True)
class Settings:
    """Everything a gateway needs to know.

    Raises:
        SettingsError: a value is not allowed, or settings exclude one another.
    """

    binds: tuple[Bind, ...] = attrs.field(
        default=(Bind(BindKind.TCP, "127.0.0.1", DEFAULT_PORT),),
        converter=binds_of,
        metadata={
            "spec": Spec(
                "Where to listen: host:port, unix:/path or fd://N; repeatable.",
                aliases=("-b", "--bind"),
                item="address",
                precedent="gunicorn",
            )
        },
    )
    health_binds: tuple[Bind, ...] = attrs.field(
        default=(),
        converter=health_binds_of,
        metadata={
            "spec": Spec(
                "Where to answer health probes (/livez, /readyz) and nothing else, whatever users do; as --bind, repeatable.",
                aliases=("--health-bind",),
                item="address",
            )
        },
    )
    backlog: int = setting(
        1024,
        "Connections of clients that may wait in the kernel for the front (not the hop's: that is --listen-backlog).",
        least=1,
        most=65535,
        precedent="granian, puma",
    )
    shutdown_delay: float = setting(
        0.0,
        "How long everything is still served after the gateway was told to stop, while readiness probes get 503 already.",
        unit="seconds",
        least=0,
        foreign=(Alias(("--drain-delay",), unit="ms"),),
        precedent="Kubernetes: endpoints are taken away while the process gets its signal",
    )
    http: HttpSettings = attrs.field(factory=HttpSettings)
    reload: ReloadSettings = attrs.field(factory=ReloadSettings)
    groups: tuple[GroupSettings, ...] = attrs.field(converter=_groups)

    mounts: tuple[MountSettings, ...] = attrs.field(default=(), converter=_mounts)

    @binds.validator
    def _binds_differ(self, attribute: object, value: tuple[Bind, ...]) -> None:
        seen = set()
        for bind in value:
            if bind.address in seen and (bind.kind is not BindKind.TCP or bind.port):
                raise SettingsError(f"bind = '{bind}': it is given twice; allowed is each address once")
            seen.add(bind.address)

    @groups.validator
    def _names_differ(self, attribute: object, value: tuple[GroupSettings, ...]) -> None:
        if not value:
            raise SettingsError("groups: at least one process group is needed")
        names = [group.name for group in value]
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"groups: there are two of the name {name}")

    @mounts.validator
    def _lead_somewhere(self, attribute: object, value: tuple[MountSettings, ...]) -> None:
        check_mounts(value, self.groups)

    @health_binds.validator
    def _for_health_alone(self, attribute: object, value: tuple[Bind, ...]) -> None:
        taken = {bind.address for bind in self.binds}
        for bind in value:
            if bind.address in taken and (bind.kind is not BindKind.TCP or bind.port):
                raise SettingsError(
                    f"health-bind = '{bind}': allowed is any other address than those of bind"
                )
        livez, readyz = self.http.health_paths
        if value and livez == readyz:
            raise SettingsError(
                f"health-bind: livez-path and readyz-path are both {livez!r} there, one of them by default: set both"
            )

    @property
    def mount_table(self) -> tuple[MountSettings, ...]:
        """Where requests go: what `mounts` says; without them all go to the only group."""
        if not self.mounts:
            return (MountSettings(group=self.groups[0].name),)
        only = self.groups[0].name
        return tuple(mount if mount.group else attrs.evolve(mount, group=only) for mount in self.mounts)

    @property
    def graceful_timeout(self) -> float:
        """Seconds that requests in flight have when the gateway stops: the longest graceful-timeout of its groups."""
        return max(group.graceful_timeout for group in self.groups)

    @property
    def response_socket_timeout(self) -> float:
        """response-socket-timeout in seconds, `math.inf` for never ("defaults to the value of socket-timeout").

        Where no group has a hop it is the front's own patience with clients that do not read, as Apache's Timeout is there.
        """
        given = self.http.response_socket_timeout
        if given is None:
            daemons = [group.socket_timeout_or_default for group in self.groups if not group.is_embedded]
            return max(daemons, default=APACHE_TIMEOUT)
        return never_if_zero(given)

    def trusts_anybody(self) -> Mapping[str, str]:
        """The settings by which anybody is believed, with the item that says so."""
        http = self.http
        introduced = any((bind.proxy_protocol or http.proxy_protocol) != "off" for bind in self.binds)
        found = {
            "trusted-proxies": trusts_everyone(http.trusted_proxies) if http.proxy_headers else "",
            "proxy-allow-from": trusts_everyone(http.proxy_allow_from) if introduced else "",
        }
        return {name: item for name, item in found.items() if item}

    @classmethod
    def for_app(cls, app: str | AppTarget | Callable[..., Any], **options: Any) -> Settings:
        """Settings for one application, everything else at its default unless named.

        Args:
            app: `module:callable`, `module`, `module:factory()`, a script's path, or a callable that other processes can import;
                with `processes=0` any callable.
            options: any setting of `Settings`, `HttpSettings` or `GroupSettings` by its name; `profile` is `tuned` (nothing but
                the defaults), `express` or `directive`.

        Raises:
            SettingsError: an option is unknown or its value is not allowed.
        """
        from gatekeep.settings._declared import check_known
        from gatekeep.settings._layers import Layer, settings_from

        if app is None:
            raise SettingsError("app = None: what shall be served?")
        check_known(options)
        return settings_from([Layer("", {"app": app, **options})])


def apps_of(group: GroupSettings, settings: Settings) -> list[AppTarget]:
    """A group's applications, its own first."""
    mounted = [mount.app for mount in settings.mount_table if mount.group == group.name]
    return list(dict.fromkeys(app for app in (group.app, *mounted) if app is not None))


def check_mounts(mounts: Sequence[MountSettings], groups: Sequence[GroupSettings]) -> None:
    """Raise `SettingsError` unless each mount leads to a group that can answer, and each group can be reached."""
    names = [group.name for group in groups]
    if not mounts and len(groups) > 1:
        raise SettingsError(
            f"mounts: with {len(groups)} groups ({', '.join(names)}) they must say what goes where"
        )
    if not mounts and groups[0].app is None:
        raise SettingsError(f"groups.{names[0]}: app is needed: what shall be served?")
    for mount in mounts:
        if not mount.group and len(groups) > 1:
            raise SettingsError(f"mounts: {mount}: group is needed, one of {', '.join(names)}")
        if mount.group and mount.group not in names:
            raise SettingsError(
                f"mounts: {mount}: group = {mount.group!r}: allowed is one of {', '.join(names)}"
            )
    seen: set[tuple[str, str]] = set()
    for mount in mounts:
        if (mount.host, mount.path) in seen:
            raise SettingsError(f"mounts: there are two for {mount}")
        seen.add((mount.host, mount.path))
    for group in groups if mounts else ():
        its = [mount for mount in mounts if mount.group in (group.name, "")]
        if not its and not any(mount.dispatch_script for mount in mounts):  # which may lead anywhere
            raise SettingsError(f"groups.{group.name}: no mount leads to it")
        if group.app is None and (not its or any(mount.app is None for mount in its)):
            raise SettingsError(f"groups.{group.name}: app is needed, or one for each of its mounts")
        for mount in () if group.is_embedded else its:
            if mount.app is not None:
                _check_reachable(mount, mount.app)


def _check_reachable(mount: MountSettings, app: AppTarget) -> None:
    try:
        check_reachable(app)
    except SettingsError as error:
        raise SettingsError(f"mounts: {mount}: {error}") from None


for _class in (Settings, GroupSettings, HttpSettings, ReloadSettings, MountSettings):
    attrs.resolve_types(_class)
