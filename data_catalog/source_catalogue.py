"""The STAC catalogues that imagery comes from: an API, or a static catalogue of files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pystac
import pystac_client
import requests
import shapely
from pystac.stac_io import DefaultStacIO
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from shapely.geometry.base import BaseGeometry
from urllib3.util.retry import Retry

from data_catalog.errors import SourceError
from data_catalog.profiles import NAMED_SOURCES, profile_of
from data_catalog.redaction import redacted
from data_catalog.scenes import globe_copies, scene_area, scene_datetime
from data_catalog.search_areas import search_areas
from data_catalog.sensor_files import nearest
from data_catalog.sensors import Sensor

TIMEOUT_S = 60.0
TOLD_COLLECTIONS = 20
"""Names of collections in a message: some catalogues have hundreds."""

MADE_UP_FOR = "the next run makes up for what this one missed."
# What libraries raise about answers that are missing, or are no STAC.
_FAULTS = (
    APIError,
    pystac.STACError,
    pystac.STACTypeError,
    requests.RequestException,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
)


_RETRY = Retry(
    total=5,
    connect=2,
    read=2,
    backoff_factor=0.5,
    status_forcelist=[429, 500, 502, 503, 504],
    allowed_methods={"GET", "POST"},
)


class _FileIO(DefaultStacIO):
    """Reads the files of a static catalogue, over the network with retries and a timeout."""

    def __init__(self) -> None:
        super().__init__()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=_RETRY))

    def read_text_from_href(self, href: str) -> str:
        if not href.startswith(("http://", "https://")):
            return Path(href).read_text()
        response = self._session.get(href, timeout=TIMEOUT_S)
        response.raise_for_status()
        return response.text


@dataclass(frozen=True)
class SourceCatalogue:
    """A STAC catalogue that can be searched for scenes. Make one with :func:`open_source`.

    Attributes:
        address: Where it is.
        profile: ``planetary-computer``, ``earth-search`` or ``generic``.
        root: The catalogue as pystac sees it; a ``pystac_client.Client`` for an API.
    """

    address: str
    profile: str
    root: pystac.Catalog

    def search(self, sensor: Sensor, area: BaseGeometry, period: str) -> list[pystac.Item]:
        """A sensor's scenes that touch an area in a period.

        Args:
            sensor: What to look for.
            area: Longitude and latitude; may go past ±180°.
            period: As :func:`~data_catalog.areas.parse_period` returns it.

        Returns:
            Every such scene once, in order of time and ID, unsigned, with absolute addresses.

        Raises:
            SourceError: The catalogue cannot be searched or lacks the collection.
        """
        found = self.search_collection(sensor.collection(self.profile), area, period)
        return [item for item in found if sensor.wants(item)]

    def search_collection(
        self, collection: str, area: BaseGeometry, period: str
    ) -> list[pystac.Item]:
        """All items of a collection that touch an area in a period; else as ``search``."""
        with self._reporting(f"Searching {collection!r}"):
            found = {item.id: item for item in self._items(collection, area, period)}
            # An API answers a search of a collection that it lacks with nothing, not an error.
            if not found and self._child(collection) is None:
                raise self._lacks(collection)
        for item in found.values():
            if item.get_self_href():
                item.make_asset_hrefs_absolute()
        return sorted(found.values(), key=lambda item: (scene_datetime(item), item.id))

    def finds_some(self, sensor: Sensor, area: BaseGeometry, period: str) -> pystac.Item | None:
        """One of the scenes that ``search`` would find, in one request; None if it sees none."""
        collection = sensor.collection(self.profile)
        with self._reporting(f"Searching {collection!r}"):
            found = self._items(collection, area, period, page_items=10, requests=1)
            return next((item for item in islice(found, 10) if sensor.wants(item)), None)

    def collection_ids(self) -> list[str]:
        """IDs of the collections that it has."""
        return [collection.id for collection in self.root.get_collections()]

    def collection(self, collection: str) -> pystac.Collection:
        """A collection's own record.

        Raises:
            SourceError: The catalogue cannot be read or lacks the collection.
        """
        with self._reporting(f"Reading collection {collection!r}"):
            record = self._child(collection)
            if not isinstance(record, pystac.Collection):
                raise self._lacks(collection)
        return record

    def _lacks(self, collection: str) -> SourceError:
        there = self.collection_ids()
        told, more = ", ".join(there[:TOLD_COLLECTIONS]) or "none", len(there) - TOLD_COLLECTIONS
        return SourceError(
            f"{redacted(self.address)} has no collection {collection!r}{nearest(collection, there)}"
            f": its collections are {told}{f' and {more} more' if more > 0 else ''}. Ask for one "
            "that it has, or another --source; docs/sensors.md tells how sensors name collections."
        )

    def _child(self, collection: str) -> pystac.Catalog | None:
        if isinstance(self.root, pystac_client.Client):
            return self.root.get_collection(collection)
        return self.root.get_child(collection, recursive=True)

    @contextmanager
    def _reporting(self, task: str) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise SourceError(
                f"{task} in {redacted(self.address)} failed: {redacted(str(error))}. "
                f"Is the catalogue in reach? Run again when it is: {MADE_UP_FOR}"
            ) from None

    def _items(
        self,
        collection: str,
        area: BaseGeometry,
        period: str,
        page_items: int = 250,
        requests: int | None = None,
    ) -> Iterator[pystac.Item]:
        if isinstance(self.root, pystac_client.Client):
            for part in search_areas(area)[:requests]:
                yield from self.root.search(
                    collections=[collection],
                    intersects=shapely.geometry.mapping(part),
                    datetime=period,
                    limit=page_items,
                ).items()
            return
        child = self._child(collection)
        globe = shapely.union_all(globe_copies(area))
        shapely.prepare(globe)
        for item in child.get_items(recursive=True) if child else ():
            if _in_period(item, period) and globe.intersects(scene_area(item)):
                yield item


def open_source(source: str) -> SourceCatalogue:
    """Opens a source of imagery.

    Args:
        source: ``planetary-computer``, ``earth-search``, the address of a STAC API, or the path or
            address of a static catalogue's ``catalog.json`` (a folder that holds one will do).

    Raises:
        SourceError: There is no STAC catalogue.
    """
    address = NAMED_SOURCES.get(source, source)
    remote = urlsplit(address).scheme in ("http", "https")
    if not remote:
        path = Path(address).expanduser()
        address = str((path / "catalog.json" if path.is_dir() else path).resolve())
        if not Path(address).is_file():
            raise SourceError(
                f"Source {redacted(source)!r} is no STAC catalogue"
                f"{nearest(source, NAMED_SOURCES)}: expected {', '.join(NAMED_SOURCES)}, the "
                "address of a STAC API, or the path or address of a catalog.json."
            )
    try:
        root = pystac.Catalog.from_file(address, stac_io=_FileIO())
        if root.get_single_link("search") or root.extra_fields.get("conformsTo"):
            root = pystac_client.Client.from_file(
                address, stac_io=StacApiIO(timeout=TIMEOUT_S, max_retries=_RETRY)
            )
    except _FAULTS as error:
        raise SourceError(
            f"Source {redacted(source)!r} cannot be read as a STAC catalogue: "
            f"{redacted(str(error))}. Check the address of its first page or catalog.json, and the "
            f"network: {MADE_UP_FOR}"
        ) from None
    return SourceCatalogue(address, profile_of(address), root)


def _in_period(item: pystac.Item, period: str) -> bool:
    moment = scene_datetime(item)
    start, end = (None if t == ".." else datetime.fromisoformat(t) for t in period.split("/"))
    return (start is None or start <= moment) and (end is None or moment <= end)
