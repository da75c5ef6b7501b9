import socket
import sys

import pytest
from starlette.testclient import TestClient

from data_catalog.catalogue import Catalogue
from flows import cli
from flows.serve_command import _nothing_yet


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml", "application/json", "*/*"])
def test_before_the_first_codes_browsers_get_a_page_and_others_a_problem(accept):
    client = TestClient(_nothing_yet)
    answer = client.get("/codes", headers={"accept": accept})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "10"
    if "html" in accept:
        assert answer.headers["content-type"].startswith("text/html")
        assert "No codes are published yet" in answer.text
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith("No codes are published yet")


@pytest.fixture
def taken_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_listened_on_is_refused(
    tmp_path, taken_port, host, monkeypatch, capsys
):
    catalogue = Catalogue.create(tmp_path / "catalogue")
    arguments = ["serve", "--catalog", str(catalogue.root), "--host", host]
    monkeypatch.setattr(sys, "argv", ["rshash", *arguments, "--port", str(taken_port)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert f"Cannot listen at {host}, port {taken_port}" in said.err
    assert "--port" in said.err
    assert "Serving" not in said.out
