"""Signatures and passwords in addresses are secrets: what is logged, raised or stored has none."""

from __future__ import annotations

import logging
import re
from typing import Any

_END = r"\s'\"<>"
# An address of any scheme, and GDAL's /vsiaz/container/name and its kind, up to the query.
_QUERY = re.compile(rf"((?:\b[a-z][a-z0-9+.-]*://|/vsi\w+[/?])[^?{_END}]+)\?[^{_END}]*", re.I)
# A query whose address stands elsewhere, as in "GET /B04.tif?sig=…".
_BARE_QUERY = re.compile(rf"(?<=[^{_END}])\?[\w.%~+$-]+=[^{_END}]*")
# In HTTP every user is one; elsewhere what precedes @ may be a container: abfss://container@account.
_USER = re.compile(
    rf"(\bhttps?://)[^/?{_END}]+@|(\b[a-z][a-z0-9+.-]*://)[^/?@:{_END}]*:[^/?{_END}]*@", re.I
)
_SECRETS = (
    "sig|signature|token|credential|credentials|password|passwd|secret|account[-_]?key|"
    "sharedaccesssignature|access[-_]key|access[-_]key[-_]id|api[-_]?key|subscription[-_]?key"
)
_ASSIGNED = re.compile(rf"((?<![a-z0-9])(?:{_SECRETS})['\"]?\s?[=:]\s?['\"]?)[^,;&{_END}]+", re.I)
_SHARED = re.compile(rf"(\bSharedAccessSignature=)[^;{_END}]+", re.I)
_HEADER = re.compile(r"(\b(?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?)[^,'\"<>]+", re.I)

_LOGGERS = (
    "aiohttp.client",
    "asyncio",
    "odc.loader._rio",
    "pystac_client.stac_api_io",
    "rasterio._base",
    "rasterio._env",
    "rasterio._err",
    "rasterio._filepath",
    "rasterio._io",
    "rasterio.session",
    "urllib3.connectionpool",
    "urllib3.util.retry",
)
"""Of the libraries that are given addresses."""


def redacted(text: str) -> str:
    """The text without secrets.

    Addresses lose their query, where signatures are, and their user; what is assigned to names
    such as ``sig``, ``AccountKey`` or ``Authorization`` is left out.
    """
    text = _BARE_QUERY.sub("", _QUERY.sub(r"\1", text))
    text = _USER.sub(lambda user: user[1] or user[2], text)
    return _ASSIGNED.sub(r"\1…", _SHARED.sub(r"\1…", _HEADER.sub(r"\1…", text)))


def redacted_record(content: Any) -> Any:
    """A copy of a STAC record, or of a part of one, without secrets in any of its texts."""
    if isinstance(content, dict):
        return {key: redacted_record(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted_record(value) for value in content]
    return redacted(content) if isinstance(content, str) else content


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def redact_reader_logs() -> None:
    """Makes the libraries that are given addresses log them without secrets; once is enough."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Redaction) for f in logger.filters):
            logger.addFilter(_Redaction())


# Whoever can be given an address imports this: nobody can forget it.
redact_reader_logs()
