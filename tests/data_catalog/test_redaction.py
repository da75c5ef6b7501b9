import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.redaction import redacted, redacted_record

SIGNED = [
    "https://a.blob.core.windows.net/c/B04.tif?st=2024&sig=SECRET%2F&se=1",
    "HTTPS://host/a.tif?X-Amz-Signature=SECRET",
    "http://host/a.tif?SECRET",
    "/vsicurl/https://host/a.tif?sig=SECRET",
    "/vsicurl?max_retry=3&url=https%3A%2F%2Fhost%2Fa.tif%3Fsig%3DSECRET",
    "/vsiaz/container/a.tif?sv=1&sig=SECRET",
    "/vsis3/bucket/a.tif?X-Amz-Security-Token=SECRET",
    "/vsigs/bucket/a.tif?X-Goog-Signature=SECRET",
    "wasbs://container@account.blob.core.windows.net/a.tif?sig=SECRET",
    "abfss://container@account.dfs.core.windows.net/a.tif?sig=SECRET",
    "az://container/a.tif?sig=SECRET",
    "gs://bucket/a.tif?sig=SECRET",
    "s3://bucket/a.tif?AWSAccessKeyId=SECRET",
    "https://joe:SECRET@host/a.tif",
    "https://SECRET@host/a.tif",
    "https://joe:SEC@SECRET@host/a.tif",
    "/vsicurl/http://joe:SECRET@host/a.tif",
    "ftp://joe:SECRET@host/a.tif",
    "postgresql://stac:SECRET@host/db",
    "http://joe:SECRET@host/a.tif?sig=SECRET",
    'http://127.0.0.1:80 "GET /a/B04.tif?se=1&sig=SECRET HTTP/1.1" 206 100',
    "Retry(total=4) for url: /catalog.json?token=SECRET",
    "BlobEndpoint=https://a.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=SECRET;x=1",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=SECRET==;EndpointSuffix=x",
    "AZURE_STORAGE_SAS_TOKEN=se=1&sig=SECRET",
    "se=2024&sp=r&sig=SECRET",
    "aws_secret_access_key=SECRET",
    "{'Authorization': 'Bearer SECRET', 'Accept': '*/*'}",
    "Authorization: Basic SECRET",
    "{'Ocp-Apim-Subscription-Key': 'SECRET'}",
    '{"token": "SECRET"}',
]


@pytest.mark.parametrize("text", SIGNED)
def test_no_secret_is_left(text: str) -> None:
    assert "SECRET" in text
    for around in ("{}", "'{}' failed", "cannot open {}: gone", '<a href="{}">'):
        assert "SECRET" not in redacted(around.format(text))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "'/vsicurl/https://host/a/B04.tif?sig=x%2F&se=1' failed: is http://h/b?c there?",
            "'/vsicurl/https://host/a/B04.tif' failed: is http://h/b there?",
        ),
        (
            "wasbs://container@account.blob.core.windows.net/a.tif?sig=x is gone",
            "wasbs://container@account.blob.core.windows.net/a.tif is gone",
        ),
        ("http://joe:x@host:8080/a.json", "http://host:8080/a.json"),
        ("Sentinel-2, asset B04: HTTP status 404", "Sentinel-2, asset B04: HTTP status 404"),
        ("is the collection there? a=b", "is the collection there? a=b"),
        ("write to joe@example.org", "write to joe@example.org"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("a significant design: 12", "a significant design: 12"),
    ],
)
def test_the_rest_of_the_text_is_left(text: str, left: str) -> None:
    assert redacted(text) == left


@given(st.text())
def test_redaction_is_done_once(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def test_a_record_loses_the_secrets_of_all_its_texts() -> None:
    record = {
        "assets": {"B04": {"href": "http://h/B04.tif?sig=SECRET", "proj:shape": [7, 7]}},
        "links": [{"href": "https://joe:SECRET@h/item.json"}],
        "bbox": (1.5, None),
    }
    assert redacted_record(record) == {
        "assets": {"B04": {"href": "http://h/B04.tif", "proj:shape": [7, 7]}},
        "links": [{"href": "https://h/item.json"}],
        "bbox": [1.5, None],
    }


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "rasterio._env", "aiohttp.client"])
def test_libraries_log_without_secrets(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(name).debug("%s is read", "http://h/a.tif?sig=SECRET")
    assert caplog.messages == ["http://h/a.tif is read"]
