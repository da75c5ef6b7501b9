import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from published_world import BANDS, SIZE, make_model

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.models import publish_model
from data_catalog.query_images import code_of_image

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

SIDE = SIZE // 10
NUMBERS = np.random.default_rng(3).integers(1, 4000, (len(BANDS), SIDE, SIDE), np.uint16)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("images") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    return catalogue, model


def write(path: Path, numbers: np.ndarray, driver: str = "GTiff", **options) -> Path:
    count, height, width = numbers.shape
    with rasterio.open(
        path, "w", driver, width, height, count, dtype=numbers.dtype, **options
    ) as file:
        file.write(numbers)
    return path


def test_an_image_has_the_code_of_its_reflectance(world, tmp_path):
    catalogue, model = world
    numbers = NUMBERS.copy()
    numbers[:, :9, :9] = 0
    reflectance = np.where(numbers == 0, np.float32("nan"), numbers * np.float32(1e-4))
    expected = model.encode(reflectance[None]).tolist()
    for path in (
        write(tmp_path / "a.tif", numbers),
        write(tmp_path / "a.png", numbers, "PNG"),
        write(tmp_path / "b.tif", reflectance),
        write(tmp_path / "c.tif", np.nan_to_num(reflectance, nan=-1.0), nodata=-1),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert code_of_image(catalogue, model.model_id, path).tolist() == expected


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (NUMBERS[:, :64], "192 x 64 pixels.*192 x 192"),
        (NUMBERS[:2], "2 bands.*blue, green, red, in this order"),
        (NUMBERS.astype(np.uint8), "uint8.*reflectance"),
        (np.zeros_like(NUMBERS), "without any observed pixel"),
        (NUMBERS.astype(np.float32), "band blue.*divide by 10,000"),
        (np.full_like(NUMBERS, 65535), "6.5535 in band blue: expected -0.2 to 2"),
        (NUMBERS.astype(np.int16) - 9000, "median reflectance of -0.*expected -0.2"),
        (np.full(NUMBERS.shape, np.inf, np.float32), "median reflectance of inf"),
    ],
)
def test_other_images_are_refused_with_what_is_wrong(world, tmp_path, numbers, says):
    catalogue, model = world
    with pytest.raises(QueryError, match=says):
        code_of_image(catalogue, model.model_id, write(tmp_path / "image.tif", numbers))


def test_what_is_no_image_is_refused(world, tmp_path):
    catalogue, model = world
    path = tmp_path / "image.tif"
    with pytest.raises(QueryError, match="no image file"):
        code_of_image(catalogue, model.model_id, path)
    path.write_text("not pixels")
    with pytest.raises(QueryError, match="no image that can be read"):
        code_of_image(catalogue, model.model_id, path)
    secret = write(tmp_path / "secret.tif", NUMBERS)
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="UInt16" '
        f'band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1'
        "</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(QueryError, match="no image that can be read"):
        code_of_image(catalogue, model.model_id, path)


def test_a_truncated_image_is_refused(world, tmp_path):
    catalogue, model = world
    path = write(tmp_path / "image.tif", NUMBERS)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(QueryError, match="cannot be read as an image"):
        code_of_image(catalogue, model.model_id, path)
