"""STAC items of trained models, with the MLM extension."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac

from data_catalog import stac
from data_catalog.licences import Sources, licence_fields, licence_links
from data_catalog.sensors import get_sensor
from data_catalog.stac_items import software, table_asset

if TYPE_CHECKING:
    from rshash.model import Model

SAFETENSORS = "application/vnd.safetensors"


def model_item(
    model: Model, sources: Sources, segment_hrefs: Iterable[str], learned: Path | None = None
) -> pystac.Item:
    """The item of a trained model, with the MLM extension.

    Args:
        model: The model.
        sources: What it was trained on.
        segment_hrefs: Addresses of the segments it was trained on, relative to the item.
        learned: The staged table of the codes that were learned with it; None where it was trained
            without labels.
    """
    item = pystac.Item(model.model_id, None, None, datetime.now(UTC), {})
    item.stac_extensions = [stac.MLM, stac.PROCESSING]
    pixels = model.tile_size // get_sensor(model.primary_sensor).resolution
    spec = model.extractor.spec()
    backbone = spec.get("architecture") or spec.get("weights") or spec["kind"]
    item.properties |= {
        "title": f"{model.method}, {model.bits} bit, for {model.primary_sensor}",
        **licence_fields(sources),
        **software(),
        "processing:lineage": f"Trained {'with' if learned else 'without'} labels on tiles of "
        f"{', '.join(sources)}.",
        "bands": [{"name": band} for band in model.bands],
        "mlm:name": model.model_id,
        "mlm:architecture": f"{model.method} ({backbone} features)",
        "mlm:tasks": ["similarity-search"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": version("torch"),
        "mlm:input": [_model_input(model, pixels)],
        "mlm:output": [_model_output(model)],
        "rshash:model": model.model_id,
        "rshash:bits": model.bits,
        "rshash:sensor": model.primary_sensor,
        "rshash:secondary_sensors": list(model.secondary_sensors),
        "rshash:tile_size": model.tile_size,
    }
    # The core schema allows bands in the properties only where an asset has them too.
    weights = {
        "mlm:artifact_type": "safetensors.torch.save_file",
        "bands": item.properties["bands"],
    }
    item.add_asset(
        "weights",
        pystac.Asset("./weights.safetensors", "Weights", None, SAFETENSORS, ["mlm:model"], weights),
    )
    item.add_asset(
        "description",
        pystac.Asset(
            "./model.json",
            "Everything besides the weights that is needed to make codes",
            None,
            "application/json",
            ["metadata"],
        ),
    )
    if learned:
        item.stac_extensions.append(stac.TABLE)
        item.add_asset("learned-codes", table_asset(learned, "Learned codes", ["data"]))
    for href in segment_hrefs:
        item.add_link(pystac.Link("derived_from", href, "application/geo+json"))
    item.add_links(licence_links(sources))
    return item


def _model_input(model: Model, pixels: int) -> dict[str, Any]:
    stored = get_sensor(model.primary_sensor).stored
    return {
        "name": f"Tile of {model.primary_sensor}",
        "description": f"{stored.quantity} (unit {stored.unit}), NaN where not observed",
        "bands": list(model.bands),
        "input": {
            "shape": [-1, len(model.bands), pixels, pixels],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
    }


def _model_output(model: Model) -> dict[str, Any]:
    return {
        "name": "Hash code",
        "description": "Bits packed into 64-bit words, bit 0 as the most significant bit of word 0",
        "tasks": ["similarity-search"],
        "result": {
            "shape": [-1, -(-model.bits // 64)],
            "dim_order": ["batch", "embedding"],
            "data_type": "uint64",
        },
    }
