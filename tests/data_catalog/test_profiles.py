import time

import pytest

from data_catalog import profiles
from data_catalog.errors import SourceError
from data_catalog.profiles import NAMED_SOURCES, profile_of, sign


def test_catalogues_are_known_by_their_host() -> None:
    for name, address in NAMED_SOURCES.items():
        assert profile_of(address) == profile_of(f"{address}/collections") == name
    assert profile_of("https://example.org/stac") == profile_of("/data/catalog.json") == "generic"


def test_addresses_are_signed_for_the_planetary_computer_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sign("https://host/a.tif", "earth-search") == "https://host/a.tif"
    monkeypatch.setattr(profiles.planetary_computer, "sign_url", lambda href: f"{href}?sig=x")
    assert sign("https://host/a.tif", "planetary-computer") == "https://host/a.tif?sig=x"


def test_a_signing_service_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiles, "SIGNING_TIMEOUT_S", 0.1)
    monkeypatch.setattr(profiles.planetary_computer, "sign_url", lambda _: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"no answer in 0\.1 s"):
        sign("https://host/a.tif", "planetary-computer")
    assert time.monotonic() - began < 2
