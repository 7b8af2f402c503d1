"""The task families by name."""

import difflib

from metalib.locomotion.point_navigation import PointNavigation
from metalib.locomotion.tasks import ANT_DIR, ANT_VEL, CHEETAH_DIR, CHEETAH_VEL, LocomotionFamily

Family = LocomotionFamily | PointNavigation

FAMILIES: dict[str, Family] = {
    family.name: family for family in (CHEETAH_VEL, CHEETAH_DIR, ANT_VEL, ANT_DIR, PointNavigation())
}


def family_named(name: str) -> Family:
    """Return the task family of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in FAMILIES:
        nearest = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"unknown task family {name!r}; known: {', '.join(FAMILIES)}{hint}")
    return FAMILIES[name]
