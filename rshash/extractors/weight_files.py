"""Files of network weights: fetched, verified and read without running anything in them."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from rshash.errors import FeatureError
from rshash.features import is_counter


def read_weights(path: str | Path | None, published_at: str | None = None) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint by name.

    The file is safetensors, or a zip archive as torch writes it. That is read by torch's restricted
    unpickler (``weights_only``), which makes tensors and plain containers of them and can call
    nothing else: many weights are published in no other form. A bare pickle is never opened.

    Args:
        path: The file. Tensors in dictionaries of a dictionary get names joined by dots.
        published_at: The address where it comes from. If that ends in a part of the file's SHA-256,
            the file is verified, unless it is safetensors: a copy in another format.

    Raises:
        FeatureError: There is no such file, it is not the one that was published, or it holds
            anything but tensors.
    """
    if path is None or not Path(path).is_file():
        raise FeatureError(
            f'No checkpoint at {path}: the spec\'s "checkpoint" is the path of a safetensors file '
            "or of a state dictionary that torch saved."
        )
    path = Path(path)
    if published_at is not None and path.suffix != ".safetensors":
        _check_hash(path, published_at)
    if zipfile.is_zipfile(path):
        return _read_archive(path)
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise FeatureError(
            f"{path} is not a readable checkpoint, neither safetensors ({error}) nor a zip archive "
            "of torch.save. A bare pickle is not opened: it could run any program."
        ) from error


def _read_archive(path: Path) -> dict[str, Tensor]:
    try:
        return dict(_named(torch.load(path, map_location="cpu", weights_only=True)))
    except Exception as error:
        raise FeatureError(
            f"{path} does not hold network weights alone: {str(error).splitlines()[0]} "
            "Save the network's state_dict() as safetensors and use that."
        ) from error


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Loads weights into a network; all of them must be there and fit.

    Raises:
        FeatureError: Names or shapes differ; the message holds `origin`.
    """
    expected = {k: v for k, v in network.state_dict().items() if not is_counter(k)}
    given = {k: v for k, v in tensors.items() if not is_counter(k)}
    problems = [
        *(f"missing {name}" for name in sorted(expected.keys() - given.keys())),
        *(f"unexpected {name}" for name in sorted(given.keys() - expected.keys())),
        *(
            f"{name} of shape {tuple(given[name].shape)} in place of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & given.keys())
            if given[name].shape != expected[name].shape
        ),
    ]
    if problems:
        raise FeatureError(
            f"The weights in {origin} do not fit {type(network).__name__}: "
            f"{'; '.join(problems[:8])}{' …' if len(problems) > 8 else ''}. "
            "Check the architecture, its options and the number of bands."
        )
    network.load_state_dict(dict(given), strict=False)


def fetch_weights(url: str) -> Path:
    """The file of an address, downloaded into torch.hub's cache unless it is there.

    Raises:
        FeatureError: It cannot be downloaded, or its SHA-256 is not the one in the address.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), _published_hash(url), progress=False)
        except (OSError, RuntimeError) as error:
            raise FeatureError(
                f"{url} could not be downloaded: {error}. Where there is no connection, bring the "
                'file and give its path as the spec\'s "checkpoint".'
            ) from error
    return path


def _check_hash(path: Path, url: str) -> None:
    expected = _published_hash(url)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and not found.startswith(expected):
        raise FeatureError(
            f"{path} is damaged or another file: its SHA-256 should begin with {expected}, "
            f"but is {found}. Remove it and fetch {url} again."
        )


def _published_hash(url: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    return found.group(1) if found else None


def _named(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _named(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        raise ValueError(f"{prefix or 'it'} is a {type(content).__name__}, not a tensor.")
