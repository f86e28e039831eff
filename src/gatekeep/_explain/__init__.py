"""The effective schedule of a gateway: what fires when, at each stage, and which settings hide or defeat each other. Pure.

What a setting says is not what happens: request-timeout grows with the number of threads, some values are made from others, and
the one that fires first hides the rest. Here all of that is worked out from the settings alone, as data (`_model`);
`_explain_view` makes text of it.
"""

from __future__ import annotations

from gatekeep._explain._checks import GROUP_CHECKS, Facts, findings
from gatekeep._explain._checks_gateway import GATEWAY_CHECKS
from gatekeep._explain._embedded import notes_on_embedded
from gatekeep._explain._lifetime import lifetime
from gatekeep._explain._model import Explanation, GroupPlan, Surroundings
from gatekeep._explain._request import front_stages, group_stages
from gatekeep._explain._timelines import group_timelines, stop
from gatekeep._explain._words import finite
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings

__all__ = ["Explanation", "Surroundings", "explain"]


def explain(settings: Settings, surroundings: Surroundings | None = None) -> Explanation:
    """What these settings come to.

    Args:
        surroundings: what is known of the machine, for warnings that need it.
    """
    surroundings = surroundings or Surroundings()
    facts = [Facts(settings, group, surroundings) for group in settings.groups]
    return Explanation(
        addresses=tuple(map(str, settings.binds)),
        health_addresses=tuple(map(str, settings.health_binds)),
        stages=front_stages(settings),
        groups=tuple(map(_plan, facts)),
        stop=stop(settings),
        warnings=(
            *(found for each in facts for found in findings(GROUP_CHECKS, each)),
            *findings(GATEWAY_CHECKS, facts[0]),
        ),
    )


def _plan(facts: Facts) -> GroupPlan:
    group = facts.group
    is_embedded = not group.processes
    return GroupPlan(
        name=group.name,
        processes=group.processes,
        threads=group.threads,
        applications=facts.applications,
        mounts=_mounts(group, facts.settings),
        t_fire=None if is_embedded else finite(facts.fire),
        stages=group_stages(group, facts.settings),
        timelines=() if is_embedded else group_timelines(group),
        lifetime=() if is_embedded else lifetime(group),
        notes=notes_on_embedded() if is_embedded else (),
    )


def _mounts(group: GroupSettings, settings: Settings) -> tuple[str, ...]:
    """The mounts that lead to it; one whose application is not the group's own names it."""
    return tuple(
        str(mount) + (f" ({mount.app})" if mount.app is not None else "")
        for mount in settings.mount_table
        if mount.group == group.name
    )
