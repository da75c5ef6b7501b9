"""Real STAC records, and the table in docs/sensors.md of what becomes of them.

Write the table anew with ``python tests/data_catalog/real_items.py``.
"""

import json
from pathlib import Path

import pystac

from data_catalog.errors import SensorError
from data_catalog.scenes import scene_epsg
from data_catalog.sensors import get_sensor, resolve_band, resolve_mask

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sensors.md"
BEGIN, END = "<!-- real items -->\n", "<!-- end of real items -->\n"
SENSORS = {
    "sentinel-2-l2a": "sentinel-2-l2a",
    "sentinel-2-c1-l2a": "sentinel-2-c1-l2a",
    "landsat-c2-l2": "landsat-c2-l2",
    "landsat-8-c2-l2": "landsat-c2-l2",
    "sentinel-1-rtc": "sentinel-1-rtc",
    "sentinel-1-grd": "sentinel-1-rtc",
}
"""The sensor that a user would ask for, by the items' collection."""


def real_items(shared: Path) -> dict[str, pystac.Item]:
    """Items of imagery as the catalogues answered them, by ``catalogue/ID``."""
    items = {}
    for path in sorted((shared / "data" / "stac-items").glob("*/*/*.json")):
        if path.parent.name in SENSORS and path.stem != "collection":
            record = json.loads(path.read_text())
            item = pystac.Item.from_dict(record, migrate=False)
            items[f"{path.parts[-3]}/{item.id}"] = item
    assert items, f"{shared} holds no items"
    return items


def item_table(items: dict[str, pystac.Item]) -> str:
    """A Markdown table of what is read of every item."""
    head = ("catalogue", "item", "sensor", "assets", "scale", "offset", "nodata", "mask", "EPSG")
    rows = [head, ("---",) * len(head)]
    for name, item in items.items():
        catalogue, item_id = name.split("/")
        sensor = get_sensor(SENSORS[str(item.collection_id)])
        try:
            bands = [resolve_band(item, sensor, band) for band in sensor.bands]
        except SensorError:
            blank = ("",) * (len(head) - 4)
            rows.append((catalogue, item_id, "none: refused", "lacks those of its bands", *blank))
            continue
        numbers = [
            " ".join(sorted({f"{getattr(band, key):g}" for band in bands}))
            for key in ("scale", "offset", "nodata")
        ]
        mask = resolve_mask(item, sensor.mask).key if sensor.mask else "none"
        keys = " ".join(band.key for band in bands)
        rows.append((catalogue, item_id, sensor.id, keys, *numbers, mask, str(scene_epsg(item))))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def table_in_docs() -> str:
    """The table as the page shows it."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    table = item_table(real_items(ROOT.parent / "shared"))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}")
