"""Fixtures for all tests: a demonstration world served over HTTP, and a real Prefect server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# What a slow machine, or luck, cannot change.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first: at the end no process is left alone with them."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real records and images, which are not part of the project."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there: it holds real data that the project does not ship")
    return SHARED


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server that flows of this process report to."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.server import prefect_server

    home = tmp_path_factory.mktemp("prefect")
    with (
        prefect_server(home) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api"}),
    ):
        yield address
