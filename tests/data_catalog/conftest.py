import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_server import environment, new_bucket, object_server
from tiny_source import TinySource

from data_catalog import byte_ranges, rasters
from data_catalog.catalogue import Catalogue

# Once for all processes that tests kill: importing takes longer than what they do. The server
# that they are forked from is the same for all tests, and loads nothing more once it runs.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    [
        "__main__",
        "data_catalog.code_tables",
        "data_catalog.ingest",
        "data_catalog.observations",
        "data_catalog.segments",
        "rshash.model",
        "torchgeo.models",
    ]
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_DELAYS_S", (0.05, 0.05))
    monkeypatch.setitem(rasters.GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.05)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue.create(tmp_path / "catalogue")


@pytest.fixture
def source(tmp_path: Path) -> TinySource:
    return TinySource(tmp_path / "source")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with object_server() as address:
        yield address


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment(s3_server, str(tmp_path / "cache")).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_server)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A published world to read from."""
    from served_world import publish_world

    return publish_world(tmp_path_factory.mktemp("world") / "catalogue")


@pytest.fixture(scope="session")
def address(world: Catalogue) -> Iterator[str]:
    """Where a service of the world answers, which images can be asked of too."""
    from served_world import served

    with served(world, images=True) as address:
        yield address
