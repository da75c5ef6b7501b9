"""Commands that save areas and addresses under names, on the Prefect server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import shapely
from cyclopts import App, Parameter

from data_catalog.areas import parse_area
from data_catalog.catalogue_address import check_address
from flows.saved import everything, remove, save
from flows.tables import print_rows

saved = App(
    name="saved",
    help="""Save areas, catalogues and their secrets under names, for the command line and the UI.

    They are blocks on the Prefect server, which its UI shows and edits. Secrets are taken from the
    environment, never from the command line, and are shown nowhere.

    **Example**

        rshash saved area tuebingen 8.9,48.4,9.3,48.6

        rshash nightly --area saved:tuebingen
    """,
)


@saved.default
@saved.command(name="list")
def list_saved() -> None:
    """List what is saved.

    **Example**

        rshash saved list
    """
    print_rows(everything(), "Saved")


@saved.command
def area(name: str, area: Annotated[str, Parameter(allow_leading_hyphen=True)], /) -> None:
    """Save an area of interest.

    **Example**

        rshash saved area tuebingen 8.9,48.4,9.3,48.6

        rshash saved area andes -70.9,-33.6,-70.4,-33.2

        rshash saved area alps alps.geojson

    Args:
        name: Lower-case letters, digits and dashes.
        area: As `rshash ingest --area` takes it. Of a file the content is saved.
    """
    text = _portable(area)
    parse_area(text)
    save("area", name, text)
    _say("area", name)


@saved.command
def source(name: str, address: str, /) -> None:
    """Save a catalogue of imagery, with PC_SDK_SUBSCRIPTION_KEY where it is set.

    **Example**

        rshash saved source pc planetary-computer

    Args:
        name: Lower-case letters, digits and dashes.
        address: As `rshash ingest --source` takes it.
    """
    _say("source", name, save("source", name, address))


@saved.command
def catalogue(name: str, address: str, /) -> None:
    """Save where a catalogue is, with the credentials of its bucket in AWS_… where they are set.

    **Example**

        rshash saved catalogue europe s3://embeddings/europe

    Args:
        name: Lower-case letters, digits and dashes.
        address: As `--catalog` takes it.
    """
    _say("catalogue", name, save("catalogue", name, check_address(address)))


@saved.command(name="stac-api")
def stac_api(name: str, address: str, /) -> None:
    """Save a STAC API that records are pushed to, with RSHASH_STAC_API_TOKEN where it is set.

    **Example**

        rshash saved stac-api ours https://stac.example.com

    Args:
        name: Lower-case letters, digits and dashes.
        address: As `rshash publish --to` takes it.
    """
    from flows.publish_command import check_api_address

    _say("stac-api", name, save("stac-api", name, check_api_address(address)))


@saved.command(name="remove")
def forget(kind: Literal["area", "source", "catalogue", "stac-api"], name: str, /) -> None:
    """Forget what is saved under a name.

    **Example**

        rshash saved remove area tuebingen

    Args:
        kind: What it is.
        name: Its name.
    """
    remove(kind, name)
    print(f"There is no {kind} {name} any more.")


def _portable(area: str) -> str:
    """An area as text that means the same on every machine."""
    path = Path(area).expanduser()
    try:
        if not path.is_file():
            return area
    except (OSError, ValueError):
        return area
    if path.suffix.lower() in (".geojson", ".json"):
        return path.read_text(encoding="utf-8-sig")
    return json.dumps(shapely.geometry.mapping(parse_area(area)))


def _say(kind: str, name: str, secrets: list[str] | None = None) -> None:
    from prefect.settings import PREFECT_API_URL

    held = f", with {', '.join(secrets)}" if secrets else ""
    where = f"on {PREFECT_API_URL.value()}"
    if not PREFECT_API_URL.value():
        where = "in this shell's own Prefect home, as PREFECT_API_URL is not set"
    print(f"Saved {kind} {name}{held} {where}: name it as saved:{name}.")
