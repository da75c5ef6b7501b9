"""Validates STAC records against local schemas: core 1.1 ships with pystac, extensions lie beside
the checkout."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

FOLDER = Path(__file__).parents[3] / "shared" / "stac-schemas"

# Schemas that an extension refers to without the catalogue ever using the part that they describe.
_UNUSED = {
    "https://proj.org/schemas/v0.7/projjson.schema.json": {},
}
_DATA_TYPES = {
    "definitions": {
        "bands": {"items": {"properties": {"data_type": {"enum": ["float32", "uint16", "uint64"]}}}}
    }
}


@lru_cache
def _registry() -> Registry:
    if not FOLDER.is_dir():
        pytest.skip(f"the STAC extensions' schemas are not at {FOLDER}")
    core = get_local_schema_cache()
    schemas = core | _UNUSED
    # The embeddings schema refers to core 1.0, whose version constant refuses every 1.1 record:
    # what it demands itself is checked on top of core 1.1.
    schemas |= {uri.replace("v1.1.0", "v1.0.0"): schema for uri, schema in core.items()}
    schemas["https://stac-extensions.github.io/raster/v1.1.0/schema.json"] = _DATA_TYPES
    for path in FOLDER.glob("*.json"):
        schema = json.loads(path.read_text())
        schemas[schema["$id"].rstrip("#")] = schema
    return Registry().with_resources(
        (uri, Resource.from_contents(schema, default_specification=DRAFT7))
        for uri, schema in schemas.items()
    )


def assert_valid(record: dict[str, Any]) -> None:
    """Fails unless a catalogue, collection or item is valid, with all its extensions."""
    kind = {"Feature": "item"}.get(record["type"], record["type"].lower())
    core = f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"
    registry = _registry()
    for uri in [core, *record.get("stac_extensions", [])]:
        validator = Draft7Validator(registry.contents(uri), registry=registry)
        errors = [
            f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(record)
        ]
        assert not errors, f"{record['id']} against {uri}:\n" + "\n".join(errors)


def assert_catalogue_valid(root: Path) -> int:
    """Fails unless every record reachable from the root is valid; returns how many are."""
    todo, seen = [root / "catalog.json"], set[Path]()
    while todo:
        path = todo.pop().resolve()
        if path in seen:
            continue
        seen.add(path)
        record = json.loads(path.read_text())
        assert_valid(record)
        for link in record["links"]:
            if "://" not in link["href"]:
                assert (path.parent / link["href"]).exists(), f"{path}: {link}"
                if link["rel"] in ("child", "item") or link["rel"].endswith("-version"):
                    todo.append(path.parent / link["href"])
        for asset in record.get("assets", {}).values():
            assert (path.parent / asset["href"]).exists(), f"{path}: {asset['href']}"
    return len(seen)
