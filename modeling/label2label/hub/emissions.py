"""What training cost in carbon dioxide, estimated from the time that its logs tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Lannelongue, Grealey & Inouye, "Green Algorithms" (arXiv:2007.07610), equation 1 and its defaults:
# power of a core of unknown kind, of memory, overhead of an average data centre, and the world's
# average electricity.
WATTS_PER_CORE = 12.0
WATTS_PER_GIGABYTE = 0.3725
POWER_USAGE_EFFECTIVENESS = 1.67
GRAMS_PER_KILOWATT_HOUR = 475.0

CORES = 2  # what the shipped model was trained on
GIGABYTES = 8.0

SOURCE = "estimated from training time by Green Algorithms (arXiv:2007.07610)"


@dataclass(frozen=True)
class Emissions:
    """An estimate.

    Args:
        hours: of training, all rounds.
        grams: of CO2 equivalent.
    """

    hours: float
    grams: float


def estimate_emissions(logs: Iterable[Iterable[Mapping[str, Any]]]) -> Emissions | None:
    """Estimate the emissions of training on processor cores.

    Args:
        logs: the epochs of each round of training, with `seconds` each.

    Returns:
        The estimate, from `CORES` fully used cores and `GIGABYTES` of memory; None without logs.
    """
    seconds = sum(epoch["seconds"] for log in logs for epoch in log)
    if not seconds:
        return None
    watts = CORES * WATTS_PER_CORE + GIGABYTES * WATTS_PER_GIGABYTE
    hours = seconds / 3600
    kilowatt_hours = hours * watts * POWER_USAGE_EFFECTIVENESS / 1000
    return Emissions(hours, kilowatt_hours * GRAMS_PER_KILOWATT_HOUR)
