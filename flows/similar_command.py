"""`rshash similar`: which places look like this?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.areas import parse_area, parse_period
from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.grid import parse_tile_id
from flows.query_parameters import SimilarParameters
from flows.tables import print_similar

if TYPE_CHECKING:
    from data_catalog.query import PublishedCodes
    from data_catalog.query_filters import Filters
    from data_catalog.query_found import Found

Flat = Parameter(name="*")

MOST_ON_PICTURE = 100
"""Tiles: a larger picture opens in few programs."""


def similar(
    *tile_ids: str,
    parameters: Annotated[SimilarParameters | None, Flat] = None,
) -> None:
    """Find the places that look most like a tile.

    **Example**: the 12 most similar tiles, at least 5 km away, as a picture

        rshash similar UTM1920-32N_0305_2770 -k 12 --minimum-distance 5000 --picture similar.png

    Like the tile at a place, in a region, observed in summer and hardly clouded

        rshash similar --lon 10.17 --lat 48.01 --bbox 9.9,47.8,10.4,48.2
        --period 2024-06-01/2024-08-31 --minimum-clear 0.9

    More like these two, less like that one, as a file for a GIS

        rshash similar --like UTM1920-32N_0305_2770 UTM1920-32N_0298_2779
        --unlike UTM1920-32N_0306_2760 --output similar.geojson

    Like an image; or all tiles within 6 bits of each of two

        rshash similar --image tile.tif

        rshash similar UTM1920-32N_0305_2770 UTM1920-32N_0298_2779 --radius 6 -k 1000
        --output similar.parquet

    Args:
        tile_ids: Tile IDs, such as UTM1920-32N_0305_2770; `rshash tile LON LAT` tells a place's.
        parameters: What else to be similar to, where to look and how many to show.
    """
    parameters = parameters or SimilarParameters()
    tile_ids = tuple(dict.fromkeys(tile_ids))
    _check(tile_ids, parameters)
    catalogue = Catalogue.open(parameters.catalog)
    from data_catalog.query import open_codes

    codes = open_codes(catalogue, parameters.model)
    codes.search.check_numbers(parameters.k, parameters.radius)
    found = _find(catalogue, codes, tile_ids, parameters)
    named = replace(found, queries=[_example_names(parameters)]) if parameters.like else found
    for one in named.of_each():
        if len(one):
            print_similar(one, codes.bits)
        else:
            print(f"No tile passes the filters for {one.queries[0]}: loosen them.")
    if parameters.output:
        from data_catalog.query_results import write_result

        write_result(parameters.output, named.frame(), codes)
        print(f"Result: {parameters.output}")
    if parameters.picture:
        from data_catalog.pictures import retrieval_sheet

        retrieval_sheet(
            catalogue,
            codes,
            found.frame_of_one(),
            parameters.picture,
            parameters.like,
            parameters.unlike,
            _filters(parameters),
        )
        print(f"Picture: {parameters.picture}")


def _check(tile_ids: tuple[str, ...], parameters: SimilarParameters) -> None:
    for tile_id in (*tile_ids, *parameters.like, *parameters.unlike):
        parse_tile_id(tile_id)
    at_place = parameters.lon is not None or parameters.lat is not None
    asked = {
        "tile IDs": bool(tile_ids),
        "--lon and --lat": at_place,
        "--image": parameters.image is not None,
        "--like": bool(parameters.like),
    }
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) != 1:
        raise QueryError(
            f"Similar to what? Expected one of {', '.join(asked)}, but found "
            f"{' and '.join(given) or 'none'}."
        )
    if at_place and (parameters.lon is None or parameters.lat is None):
        raise QueryError("A place has a longitude and a latitude: give both --lon and --lat.")
    if parameters.unlike and not parameters.like:
        raise QueryError("--unlike needs --like: name the tiles that results should be like.")
    if parameters.picture and (len(tile_ids) > 1 or parameters.image):
        raise QueryError(
            "--picture shows the results of one published tile, or of --like: ask for one."
        )
    if parameters.picture and parameters.k > MOST_ON_PICTURE:
        raise QueryError(
            f"--picture has room for {MOST_ON_PICTURE} tiles, but -k asks for {parameters.k}: ask "
            "for fewer, or leave out --picture."
        )
    if parameters.image:
        if parameters.minimum_distance or parameters.other_blocks:
            raise QueryError(
                "--minimum-distance and --other-blocks are measured from a tile, and an image has "
                "no place: leave them out."
            )
        from data_catalog.query_images import image_driver

        image_driver(parameters.image)


def _example_names(parameters: SimilarParameters) -> str:
    unlike = f", less to {' and '.join(parameters.unlike)}" if parameters.unlike else ""
    return " and ".join(parameters.like) + unlike


def _find(
    catalogue: Catalogue,
    codes: PublishedCodes,
    tile_ids: tuple[str, ...],
    parameters: SimilarParameters,
) -> Found:
    k, radius, filters = parameters.k, parameters.radius, _filters(parameters)
    if parameters.image is not None:
        from data_catalog.query_images import code_of_image

        code = code_of_image(catalogue, codes.model_id, parameters.image)
        found = codes.search.like_codes(code, k, radius=radius, filters=filters)
        return replace(found, queries=[str(parameters.image)])
    if parameters.like:
        return codes.search.like_examples(
            parameters.like, parameters.unlike, k, radius=radius, filters=filters
        )
    if parameters.lon is not None and parameters.lat is not None:
        tile_ids = (codes.tile_at(parameters.lon, parameters.lat),)
    return codes.search.like_tiles(tile_ids, k, radius=radius, filters=filters)


def _filters(parameters: SimilarParameters) -> Filters:
    from data_catalog.query_filters import Filters

    region = None if parameters.region is None else parse_area(parameters.region)
    return Filters(
        region=region,
        period=None if parameters.period is None else _span(parameters.period),
        minimum_clear=parameters.minimum_clear,
        minimum_distance_m=parameters.minimum_distance,
        outside_block=parameters.other_blocks,
    )


def _span(period: str) -> tuple[datetime, datetime]:
    first, last = parse_period(period).split("/")
    return (
        datetime.min.replace(tzinfo=UTC) if first == ".." else datetime.fromisoformat(first),
        datetime.max.replace(tzinfo=UTC) if last == ".." else datetime.fromisoformat(last),
    )
