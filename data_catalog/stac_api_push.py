"""Pushing the catalogue's records to a STAC API that takes transactions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pystac
import pystac_client
import requests
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3.util.retry import Retry

from data_catalog.api_records import ApiRecords, difference
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.redaction import redacted

TOKEN_VARIABLE = "RSHASH_STAC_API_TOKEN"
"""Environment variable of a bearer token that is sent along."""

BATCH_ITEMS = 100
PAGE_ITEMS = 500
TIMEOUT_S = 60.0

_RETRY = Retry(
    total=5,
    connect=2,
    backoff_factor=0.5,
    status_forcelist=[429, 502, 503, 504],
    allowed_methods={"GET", "POST", "PUT"},
    raise_on_status=False,
)

Report = Callable[[int, int, str], None]


def push(
    catalogue: Catalogue, address: str, files_at: str | None = None, report: Report | None = None
) -> list[dict[str, Any]]:
    """Brings a STAC API up to date with the catalogue, reads back and compares.

    Idempotent: what the API has already is left alone, so a push that was cut off is simply
    started again. Superseded versions that the API has are updated, to tell of their successors;
    nothing is ever deleted there.

    Args:
        catalogue: What is published.
        address: Landing page of an API with the Transaction extension for items and collections.
        files_at: Address of the catalogue's folder as users reach it, the base of assets'
            addresses; without it they are where they are here.
        report: Called with the number of collections done, of all, and the one at work.

    Returns:
        A row per collection: collection, items, added, updated and unchanged.

    Raises:
        CatalogueError: The API cannot be reached, takes no transactions, refuses a record, or
            gives one back otherwise than it was sent.
    """
    # The models last: they say which one is in use, whose codes are there by then.
    collections = sorted(catalogue.collections(), key=lambda one: one == MODELS)
    rows = []
    with _explaining(address):
        api = _Api(address)
        records = ApiRecords(catalogue, api.address, files_at)
        for number, collection in enumerate(collections):
            if report is not None:
                report(number, len(collections), collection)
            rows.append(_push_collection(catalogue, api, records, collection))
    return rows


def _push_collection(
    catalogue: Catalogue, api: _Api, records: ApiRecords, collection: str
) -> dict[str, Any]:
    api.put_collection(records.collection(collection))
    there = api.items(collection)
    sent = {
        item_id: records.item(collection, item_id) for item_id in catalogue.item_ids(collection)
    }
    sent |= {
        item_id: records.item(collection, item_id)
        for item_id in there.keys() - sent.keys()
        if catalogue.is_published(collection, item_id)
    }
    new = [record for item_id, record in sent.items() if item_id not in there]
    changed = [
        record
        for item_id, record in sent.items()
        if item_id in there and difference(record, there[item_id])
    ]
    for start in range(0, len(new), BATCH_ITEMS):
        api.add_items(collection, new[start : start + BATCH_ITEMS])
    for record in changed:
        api.replace_item(collection, record)
    if new or changed:
        _compare(sent, api.items(collection))
    return {
        "collection": collection,
        "items": len(sent),
        "added": len(new),
        "updated": len(changed),
        "unchanged": len(sent) - len(new) - len(changed),
    }


def _compare(sent: dict[str, dict[str, Any]], there: dict[str, dict[str, Any]]) -> None:
    for item_id, record in sent.items():
        differing = difference(record, there[item_id]) if item_id in there else "the whole item"
        if differing:
            raise CatalogueError(
                f"The API took item {item_id} but gives it back otherwise: {differing} differs. "
                "Push again; if it stays so, the API does not keep records as they are."
            )


class _Api:
    """A STAC API that takes records."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._io = StacApiIO(headers=headers, timeout=TIMEOUT_S, max_retries=_RETRY)
        self._client = pystac_client.Client.open(self.address, stac_io=self._io)
        conforms = self._client.to_dict().get("conformsTo", [])
        if not any("transaction" in uri for uri in conforms):
            raise CatalogueError(
                f"{redacted(address)} takes no records: it does not tell of the Transaction "
                "extension. Switch that on in the API, or name another one."
            )

    def items(self, collection: str) -> dict[str, dict[str, Any]]:
        """A collection's items as the API gives them, by ID."""
        search = self._client.search(collections=[collection], limit=PAGE_ITEMS)
        return {item["id"]: item for item in search.items_as_dicts()}

    def put_collection(self, record: dict[str, Any]) -> None:
        """Adds a collection, or brings it up to date."""
        path = f"/collections/{_quoted(record['id'])}"
        there = self._request("GET", path, accept=(404,))
        if there.status_code == 404:
            self._request("POST", "/collections", record, accept=(409,))
        elif difference(record, there.json()):
            self._request("PUT", path, record)

    def add_items(self, collection: str, items: list[dict[str, Any]]) -> None:
        """Adds items that are not there, all in one request."""
        batch = {"type": "FeatureCollection", "features": items}
        answer = self._request("POST", f"/collections/{_quoted(collection)}/items", batch, (409,))
        if answer.status_code == 409:
            # A try that was cut off, or another push, has added some of them.
            there = self.items(collection)
            for item in items:
                if item["id"] in there:
                    self.replace_item(collection, item)
                else:
                    path = f"/collections/{_quoted(collection)}/items"
                    self._request("POST", path, item, accept=(409,))

    def replace_item(self, collection: str, item: dict[str, Any]) -> None:
        """Replaces an item that is there."""
        self._request(
            "PUT", f"/collections/{_quoted(collection)}/items/{_quoted(item['id'])}", item
        )

    def _request(
        self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = ()
    ) -> requests.Response:
        answer = self._io.session.request(
            method, f"{self.address}{path}", json=body, timeout=TIMEOUT_S
        )
        if not answer.ok and answer.status_code not in accept:
            raise CatalogueError(
                f"{redacted(self.address)}{path} answers {method} with {answer.status_code}: "
                f"{_said(answer)}. {_ADVICE.get(answer.status_code, 'See what the API logs')}."
            )
        return answer


_ADVICE = {
    401: f"Set {TOKEN_VARIABLE} to a token that may write",
    403: f"Set {TOKEN_VARIABLE} to a token that may write",
    405: "Switch the Transaction extension on in the API",
}


def _said(answer: requests.Response) -> str:
    try:
        found = answer.json()
        text = str(found.get("detail") or found.get("description") or found)
    except (ValueError, AttributeError):
        text = answer.text
    return text[:300].strip() or "nothing more"


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="")


@contextmanager
def _explaining(address: str) -> Iterator[None]:
    try:
        yield
    except (APIError, pystac.STACError, requests.RequestException, KeyError, ValueError) as error:
        raise CatalogueError(
            f"{redacted(address)} cannot be used as a STAC API ({redacted(str(error))}): check "
            "--to, and that the API runs. What it took before stays there; push again to go on."
        ) from error
