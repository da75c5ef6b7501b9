"""Bands: which a run fetches, which features are made from, and which tiles lack some of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import current_view
from data_catalog.observations import passed_over
from data_catalog.sensors import get_sensor
from flows.parameters import ALL_BANDS, SensorParameters
from rshash.errors import FeatureError, TrainingError
from rshash.extractors.torchgeo import own_bands

STAND_INS = {"cirrus": 0.0}
"""Reflectance in place of bands that sensors lack: clear ground shows next to none in cirrus."""

NAMED_SEGMENTS = 3


def bands_for(weights: str, parameters: SensorParameters, sensor: str) -> dict[str, Any]:
    """What the spec of a torchgeo extractor says of bands.

    Args:
        weights: Their name in torchgeo.
        parameters: May name the bands; without any, weights get their own.
        sensor: Sensor ID.

    Returns:
        The bands that the weights read of the sensor, and what stands in for those that it lacks.

    Raises:
        FeatureError: There are no such weights, or the sensor or the parameters lack a band.
    """
    offered = get_sensor(sensor).bands
    own = own_bands(weights, list(offered))
    if own is None:
        return {"bands": list(parameters.bands_of(sensor))}
    absent = [band for band in own if band not in offered]
    never = [band for band in absent if band not in STAND_INS]
    if never:
        raise FeatureError(
            f"{weights} reads the bands {', '.join(own)}, but {sensor} never has "
            f"{', '.join(never)}: use other weights, or leave the sensor out of --sensors."
        )
    bands = [band for band in own if band in offered]
    left_out = [band for band in bands if band not in parameters.bands_of(sensor)]
    if parameters.bands and left_out:
        raise FeatureError(
            f"{weights} reads the bands {', '.join(own)}, but --bands leaves out "
            f"{', '.join(left_out)}: add them, or leave --bands out."
        )
    return {"bands": bands, "absent": {band: STAND_INS[band] for band in absent}}


def check_held(catalogue: Catalogue, sensor: str, tile_size: int, bands: Sequence[str]) -> None:
    """Refuses a sensor whose tiles all lack some of the bands that features are made from.

    Raises:
        TrainingError: They do.
    """
    lacking = passed_over(catalogue, sensor, tile_size, bands)
    if len(lacking) and not len(current_view(catalogue, sensor, tile_size, bands)):
        raise TrainingError(
            f"None of the {len(lacking)} tiles of {sensor} has all the bands {', '.join(bands)}, "
            f"which features are made from: fetch them with `{_command(bands)}`, or leave the "
            "sensor out of --sensors."
        )


def not_fetched(parameters: SensorParameters, sensor: str, bands: Iterable[str]) -> str | None:
    """What is wrong where a run would not fetch all of some bands; None where it would."""
    bands, fetched = list(bands), parameters.bands_of(sensor)
    if set(bands) <= set(fetched):
        return None
    return (
        f"from the bands {', '.join(bands)} of {sensor}, but {', '.join(fetched)} would be "
        f"fetched: add --bands {' '.join(bands)}, or --bands {ALL_BANDS}."
    )


def tell_of_passed_over(
    catalogue: Catalogue, sensor: str, tile_size: int, bands: Sequence[str]
) -> None:
    """Tells how many tiles have a newer observation that lacks some of the bands, if any have."""
    # Not before a flow runs: checks come before Prefect is imported.
    from flows.artifacts import show_text

    lacking = passed_over(catalogue, sensor, tile_size, bands)
    if lacking.empty:
        return
    segments = list(lacking["segment_id"].unique())
    more = f" and {len(segments) - NAMED_SEGMENTS} more" if len(segments) > NAMED_SEGMENTS else ""
    text = (
        f"{len(lacking)} tiles of {sensor} were last seen without all the bands "
        f"{', '.join(bands)} (in the segments {', '.join(segments[:NAMED_SEGMENTS])}{more}): what "
        f"was seen with them before stands, if anything was. Fetch them with `{_command(bands)}`."
    )
    print(f"  {text}", file=sys.stderr)
    show_text("passed-over", f"# Passed over\n\n{text}\n")


def _command(bands: Sequence[str]) -> str:
    return f"rshash ingest --area AREA --bands {' '.join(bands)}"
