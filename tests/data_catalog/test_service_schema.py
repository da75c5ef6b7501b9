import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from data_catalog.service.app import make_app

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
"""All but one: that a box has an extent, or a period an end after its start, no schema can say."""


@pytest.fixture(scope="module")
def service(world):
    app = make_app(world, images=True)
    with TestClient(app, raise_server_exceptions=False):
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_as_documented(service, mode):
    asked = set()
    for found in service.get_all_operations():
        operation = found.ok()

        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            asked.add((case.method, case.path))
            answer = case.call()
            # A refusal too, which that check does not know.
            refused = [negative_data_rejection] if answer.status_code == 414 else []
            case.validate_response(answer, checks=CHECKS, excluded_checks=refused)

        try:
            ask()
        except Unsatisfiable:  # a route without parameters has no bad ones
            assert mode is GenerationMode.NEGATIVE
    assert {("GET", "/tiles/{tile_id}/similar"), ("POST", "/similar"), ("GET", "/tiles")} <= asked
