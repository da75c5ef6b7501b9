"""Signatures and passwords in addresses are secrets: what is logged, raised or stored has none."""

from __future__ import annotations

import logging
import re

_QUERY = re.compile(r"(\b(?:https?|s3|gs|az|abfs)://[^\s?'\"<>]+)\?[^\s'\"<>]*", re.IGNORECASE)
_USER = re.compile(r"(\bhttps?://)[^\s/?@'\"<>]+@", re.IGNORECASE)
_READERS = ("rasterio._env", "rasterio._err", "rasterio._io", "rasterio._base", "odc.loader._rio")
_LOADER = "odc.loader"


def redacted(text: str) -> str:
    """The text with every address cut before its query, where signatures are, and its user."""
    return _USER.sub(r"\1", _QUERY.sub(r"\1", text))


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Cuts queries; drops the loader's errors, most of which a retry mends."""
        record.msg, record.args = redacted(record.getMessage()), ()
        return not record.name.startswith(_LOADER)


def redact_reader_logs() -> None:
    """Makes the libraries that read imagery log addresses without their queries; once is enough."""
    for name in _READERS:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Redaction) for f in logger.filters):
            logger.addFilter(_Redaction())
