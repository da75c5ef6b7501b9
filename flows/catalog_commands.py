"""Commands that look after a published catalogue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from flows.catalog_parameters import GarbageParameters, RollbackParameters
from flows.parameters import CatalogParameters
from flows.tables import print_contents, print_rows

if TYPE_CHECKING:
    from data_catalog.catalogue import Catalogue

catalog = App(
    name="catalog",
    help="""List, check, switch, roll back and clean up what is published.

    **Example**

        rshash catalog --catalog catalogue

        rshash catalog verify
    """,
)
Flat = Parameter(name="*")


@catalog.default
@catalog.command(name="list")
def list_contents(*, parameters: Annotated[CatalogParameters | None, Flat] = None) -> None:
    """List what is published, with versions.

    **Example**

        rshash catalog list --catalog catalogue
    """
    path = (parameters or CatalogParameters()).catalog
    contents = _opened(parameters).contents()
    print_contents(contents, f"Published in {path}")
    for row in contents:
        if row["collection"].startswith("codes-"):
            print(f"Code table of {row['item']}, for SQL: {row['file']}")


@catalog.command
def show(item: str, /, *, parameters: Annotated[CatalogParameters | None, Flat] = None) -> None:
    """Show one item: what it says of itself, its versions, files and links.

    **Example**

        rshash catalog show mrhash-64-0a1b2c3d4e-UTM1920-32N-v2

    Args:
        item: ID of the item, as `rshash catalog list` tells it.
        parameters: Where the catalogue is.
    """
    catalogue = _opened(parameters)
    collection_id = catalogue.find(item)
    found = catalogue.item(collection_id, item)
    properties = {k: _brief(v) for k, v in found.properties.items() if v is not None}
    print_rows([{"field": k, "value": v} for k, v in properties.items()], f"{collection_id}/{item}")
    versions = catalogue.versions(collection_id, item)
    print_rows([_version(catalogue, collection_id, one) for one in versions], "Versions")
    print_rows(
        [
            {
                "asset": key,
                "rows": asset.extra_fields.get("table:row_count"),
                "size": asset.extra_fields.get("file:size"),
                "file": asset.get_absolute_href(),
            }
            for key, asset in found.assets.items()
        ],
        "Assets",
    )
    links = [{"link": link.rel, "to": link.href} for link in found.links if link.rel != "self"]
    print_rows(links, "Links")


@catalog.command
def verify(
    item: str | None = None,
    /,
    *,
    parameters: Annotated[CatalogParameters | None, Flat] = None,
) -> None:
    """Check that all files are there and as they were published; exit status 1 if not.

    **Example**

        rshash catalog verify

    Args:
        item: Just this item. Without it: everything, superseded versions too.
        parameters: Where the catalogue is.
    """
    from data_catalog import verification
    from data_catalog.orphans import orphans
    from flows.progress import Progress

    catalogue = _opened(parameters)
    with Progress("verify", 0, "items") as progress:
        faults = verification.verify(catalogue, item, progress.show)
    if faults:
        print_rows([vars(fault) for fault in faults], "Broken")
        print(
            "Restore these files from a backup. In place of a broken current code table "
            "`rshash catalog rollback` makes an older version current again."
        )
        sys.exit(1)
    print(f"{progress.done} items are as they were published.")
    left = [] if item else orphans(catalogue)
    if left:
        print_rows(
            [{"orphan": name} for name in left], "Nothing points to, see `rshash catalog gc`"
        )


@catalog.command
def rollback(
    target: str, /, *, parameters: Annotated[RollbackParameters | None, Flat] = None
) -> None:
    """Make an older version of a code table current again. Nothing is deleted.

    **Example**

        rshash catalog rollback mrhash-64-0a1b2c3d4e-UTM1920-32N-v2

    All code tables of a model as they were before a day

        rshash catalog rollback codes-mrhash-64-0a1b2c3d4e --before 2026-11-20

    Args:
        target: ID of the version that is to be current; or of a collection, with `--before`.
        parameters: Where the catalogue is, and how far to go back.
    """
    from data_catalog.rollback import roll_back

    parameters = parameters or RollbackParameters()
    catalogue = _opened(parameters)
    print_rows(roll_back(catalogue, target, parameters.before), "Current again")


@catalog.command
def use(model: str, /, *, parameters: Annotated[CatalogParameters | None, Flat] = None) -> None:
    """Switch queries and nights over to another model, or back. Nothing is deleted.

    It has to have codes in all zones that the model in use has codes in: `rshash backfill` makes
    them, and switches over by itself. The next night brings the codes up to date that it lacks.

    **Example**

        rshash catalog use mrhash-64-0a1b2c3d4e

    Args:
        model: ID of the model.
        parameters: Where the catalogue is.
    """
    from data_catalog.model_switch import switch_model

    catalogue = _opened(parameters)
    catalogue.check_writable()
    print_rows([switch_model(catalogue, model)], "In use")


@catalog.command
def gc(*, parameters: Annotated[GarbageParameters | None, Flat] = None) -> None:
    """Remove what nothing points to and, beyond a retention, what is superseded.

    Current versions, the model in use, models with codes, what current codes and models were made
    from, and what a run has staged within seven days are never removed.

    **Example**: what would go if two older versions of everything were kept

        rshash catalog gc --keep 2 --dry-run

    Old versions of more than 90 days

        rshash catalog gc --older-than 90
    """
    from data_catalog.garbage import garbage, remove
    from flows.progress import Progress

    parameters = parameters or GarbageParameters()
    catalogue = _opened(parameters)
    found = garbage(catalogue, parameters.keep, parameters.older_than)
    rows = [{"name": one.name, "why": one.why, "size": one.size} for one in found]
    title = "Would be removed" if parameters.dry_run else "Removed"
    if rows and not parameters.dry_run:
        with Progress("remove", len(rows), "names") as progress:
            remove(catalogue, found, lambda _: progress.advance())
    print_rows([*rows, _total(rows)] if rows else rows, title)


def _opened(parameters: CatalogParameters | None) -> Catalogue:
    from data_catalog.catalogue import Catalogue

    return Catalogue.open((parameters or CatalogParameters()).catalog)


def _version(catalogue: Catalogue, collection_id: str, item_id: str) -> dict[str, Any]:
    properties = catalogue.item(collection_id, item_id).properties
    row = {
        "item": item_id,
        "state": "current" if item_id in catalogue.item_ids(collection_id) else "superseded",
        "published": properties["created"],
        "rows": properties.get("table:row_count"),
    }
    changes = ("appeared", "changed", "flipped_bits")
    return row | {k: properties[f"rshash:{k}"] for k in changes if f"rshash:{k}" in properties}


def _brief(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(
            str(one.get("name", one) if isinstance(one, dict) else one) for one in value
        )
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} …"


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": f"{len(rows)} in all", "why": "", "size": sum(row["size"] for row in rows)}
