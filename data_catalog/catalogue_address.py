"""Addresses of catalogues: a folder, or a place in a bucket of an object store."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from data_catalog.errors import CatalogueError

CACHED_ASSETS, CACHED_FEATURES = ".cache/assets", ".cache/features"
"""Of the working folder: copies of a bucket's published files, and features of segments' tiles."""

_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[\w.=+ -]+)*)/?")


def is_in_bucket(address: str | Path) -> bool:
    """Whether an address is one of an object store, not a folder's path."""
    return "://" in str(address)


def check_address(address: str) -> str:
    """The address of a catalogue as it is, if it can be one.

    Raises:
        CatalogueError: It is of another kind of store, malformed, or may hold a password.
    """
    if is_in_bucket(address):
        bucket_and_prefix(address)
    return address


def bucket_and_prefix(address: str) -> tuple[str, str]:
    """Bucket and prefix of an address ``s3://bucket/prefix``; the prefix may be empty.

    Raises:
        CatalogueError: It is not such an address.
    """
    match = _BUCKET.fullmatch(address)
    parts = match[2].strip("/").split("/") if match else ["."]
    if match is None or {".", ".."} & set(parts):
        # It is not repeated: credentials may be in it.
        raise CatalogueError(
            "The catalogue's address is not one of a folder or of the form s3://bucket/prefix, "
            "without credentials, port or query: these come from AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL."
        )
    return match[1], "/".join(parts)


def working_folder(address: str | Path) -> Path:
    """The folder on this machine that what is not published yet, and copies, lie in.

    Of a catalogue in a folder it is this folder, else one in the user's cache.
    """
    if not is_in_bucket(address):
        return Path(address).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = "/".join([endpoint(), *bucket_and_prefix(str(address))])
    return Path(cache) / "rshash" / hashlib.sha256(place.encode()).hexdigest()[:20]


def endpoint() -> str:
    """Address of the object store; empty for that of AWS."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
