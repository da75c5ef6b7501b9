import time

import pytest

from data_catalog import profiles
from data_catalog.errors import SourceError
from data_catalog.profiles import NAMED_SOURCES, profile_of, sign


def test_catalogues_are_known_by_their_host() -> None:
    for name, address in NAMED_SOURCES.items():
        assert profile_of(address) == profile_of(f"{address}/collections") == name
    assert profile_of("https://example.org/stac") == profile_of("/data/catalog.json") == "generic"


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_silent_until", 0.0)


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
    monkeypatch.setattr(profiles.planetary_computer, "sign_url", lambda _: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"no answer in 0\.1 s"):
        sign("https://host/a.tif", "planetary-computer")
    assert time.monotonic() - began < 30


def test_what_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "SIGNING_TIMEOUT_S", 0.1)
    monkeypatch.setattr(profiles.planetary_computer, "sign_url", lambda _: time.sleep(5))
    with pytest.raises(SourceError, match="no answer"):
        sign("https://host/a.tif", "planetary-computer")
    monkeypatch.setattr(profiles.planetary_computer, "sign_url", lambda href: f"{href}?sig=x")
    with pytest.raises(SourceError, match="has just not answered"):
        sign("https://host/b.tif", "planetary-computer")
    monkeypatch.setattr(profiles, "_silent_until", time.monotonic())
    monkeypatch.setattr(profiles, "SIGNING_TIMEOUT_S", 60.0)
    assert sign("https://host/b.tif", "planetary-computer") == "https://host/b.tif?sig=x"


def test_an_address_that_cannot_be_signed_does_not_keep_others_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def signed(href: str) -> str:
        if "odd" in href:
            raise ValueError("no such container")
        return f"{href}?sig=x"

    monkeypatch.setattr(profiles.planetary_computer, "sign_url", signed)
    with pytest.raises(SourceError, match="could not be signed: no such container"):
        sign("https://host/odd.tif", "planetary-computer")
    assert sign("https://host/a.tif", "planetary-computer") == "https://host/a.tif?sig=x"
