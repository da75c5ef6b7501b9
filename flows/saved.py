"""Areas, catalogues and addresses that are named ``saved:NAME``: blocks of the Prefect server.

Prefect is imported only where such a name is used.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, cast

from rshash.errors import RshashError

if TYPE_CHECKING:
    from flows.blocks import Saved

SAVED = "saved:"
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def block_types() -> dict[str, type[Saved]]:
    """What can be saved, by the word for it on the command line."""
    from flows.blocks import Area, CatalogueBlock, Source, StacApi

    return {"area": Area, "source": Source, "catalogue": CatalogueBlock, "stac-api": StacApi}


def resolved(text: str, kind: str) -> str:
    """What a text stands for: itself, unless it is ``saved:NAME``.

    The secrets that were saved with it become part of this process's environment.

    Args:
        text: As a user wrote it.
        kind: One of :func:`block_types`.

    Raises:
        RshashError: Nothing is saved under that name, or the Prefect server does not answer.
    """
    if not text.startswith(SAVED):
        return text
    block = load(kind, text.removeprefix(SAVED))
    block.provide()
    return block.text


def load(kind: str, name: str) -> Saved:
    """What is saved under a name.

    Raises:
        RshashError: Nothing is, or the Prefect server does not answer.
    """
    check_name(name)
    block_type = block_types()[kind]
    found = _documents(block_type)
    if name not in found:
        raise RshashError(
            f"There is no {kind} {name!r} saved on the Prefect server: it has "
            f"{', '.join(sorted(found)) or 'none'}. Save one with `rshash saved {kind} {name} …`, "
            "or in the UI under Blocks."
        )
    return cast("Saved", cast(Any, block_type).load(name, _sync=True))


def save(kind: str, name: str, text: str) -> list[str]:
    """Saves something under a name, with the secrets for it that are in the environment.

    Args:
        kind: One of :func:`block_types`.
        name: Lower-case letters, digits and single dashes.
        text: What the name is to stand for.

    Returns:
        The environment variables whose values were saved.

    Raises:
        RshashError: The name is none.
    """
    check_name(name)
    block_type = block_types()[kind]
    given = {f: os.environ[v] for f, v in block_type.environment.items() if os.environ.get(v)}
    first = next(iter(block_type.model_fields))
    block: Any = block_type.model_validate({first: text} | given)
    block.save(name, overwrite=True, _sync=True)
    return [block_type.environment[field] for field in given]


def remove(kind: str, name: str) -> None:
    """Forgets what is saved under a name.

    Raises:
        RshashError: Nothing is.
    """
    load(kind, name)
    cast(Any, block_types()[kind]).delete(name, _sync=True)


def everything() -> list[dict[str, str]]:
    """What is saved, a row each; of secrets only that there are some."""
    rows = []
    for kind, block_type in block_types().items():
        for name, fields in sorted(_documents(block_type).items()):
            text = str(fields.get(next(iter(block_type.model_fields))))
            held = [variable for field, variable in block_type.environment.items() if fields[field]]
            shown = text if len(text) <= 60 else f"{text[:57]}…"
            rows.append({"kind": kind, "name": name, "is": shown, "with": ", ".join(held)})
    return rows


def check_name(name: str) -> None:
    """Refuses names that the Prefect server would.

    Raises:
        RshashError: It is one.
    """
    if not _NAME.fullmatch(name):
        raise RshashError(
            f"{name!r} is no name to save something under: use lower-case letters, digits and "
            "single dashes, such as tuebingen-2024."
        )


def _documents(block_type: type[Saved]) -> dict[str, dict[str, str]]:
    import httpx
    from prefect.client.orchestration import get_client

    slug = block_type.get_block_type_slug()
    try:
        with get_client(sync_client=True) as client:
            found = client.read_block_documents_by_type(slug, include_secrets=False)
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404:
            return {}  # no block of this type was saved yet
        raise RshashError(
            f"The Prefect server, which knows what {SAVED}… stands for, does not answer ({error}): "
            "start it, or set PREFECT_API_URL to its address."
        ) from None
    return {document.name: document.data for document in found if document.name}
