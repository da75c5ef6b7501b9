"""What is refused before any work, for the command line and the flows alike."""

from __future__ import annotations

from data_catalog.areas import parse_area
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.comparison import compared_with
from data_catalog.current_view import current_view
from data_catalog.evaluation import check_coded
from data_catalog.labels import load_labels
from data_catalog.quality_gate import kept_back
from data_catalog.tile_cover import tiles_covering
from data_catalog.training import known_tiles
from flows.bands import check_held, not_fetched
from flows.learning import extractors_for, label_source, settings_for
from flows.parameters import (
    EvaluateParameters,
    IngestFlowParameters,
    NightlyParameters,
    RehashFlowParameters,
    TrainParameters,
)
from flows.quality_parameters import BackfillParameters
from rshash.errors import ModelError, RshashError, TrainingError
from rshash.features import Extractor
from rshash.job import check_processes
from rshash.mrhash_settings import MrHashSettings, resolved_settings


def check_ingest(parameters: IngestFlowParameters) -> None:
    """Refuses a catalogue that nothing can be published to.

    Raises:
        CatalogueError: The catalogue's folder holds something else, or is not writable.
    """
    catalogue = Catalogue.open_or_create(parameters.catalog)
    if not parameters.plan:
        catalogue.check_writable()


def check_train(parameters: TrainParameters) -> None:
    """Refuses a training that cannot work.

    Raises:
        CatalogueError: There is no catalogue, or it is not writable.
        FeatureError: There is no such feature extractor.
        LabelError: There are no such labels, or they are no good.
        TrainingError: There are no tiles, none with the bands that features are made from, too few
            for the number of clusters, or too few GPUs.
    """
    catalogue = Catalogue.open(parameters.catalog)
    catalogue.check_writable()
    sensor, tile_size = parameters.sensors[0], parameters.tile_size
    if not len(current_view(catalogue, sensor, tile_size)):
        raise TrainingError(_no_tiles(catalogue, sensor, tile_size))
    extractors = extractors_for(parameters)
    for one, extractor in extractors.items():
        check_held(catalogue, one, tile_size, extractor.bands)
    bands = extractors[sensor].bands
    tiles = set(current_view(catalogue, sensor, tile_size, bands).tile_ids.to_pylist())
    known = known_tiles(catalogue, sensor, tile_size)
    _check_learning(catalogue, parameters, extractors, tiles, known)


def check_rehash(parameters: RehashFlowParameters) -> None:
    """Refuses to encode without a model.

    Raises:
        CatalogueError: There is no catalogue, no such model in it, it is not writable, or there is
            nothing to approve.
    """
    catalogue = Catalogue.open(parameters.catalog)
    model_id = catalogue.model_id(parameters.model)
    catalogue.check_writable()
    if parameters.approve:
        kept_back(catalogue, model_id)


def check_backfill(parameters: BackfillParameters) -> None:
    """Refuses to make codes without a model, or of no tiles.

    Raises:
        CatalogueError: There is no catalogue, no such model in it, or it is not writable.
        ModelError: There are no tiles that the model can make codes of.
    """
    catalogue = Catalogue.open(parameters.catalog)
    model_id = catalogue.model_id(parameters.model or catalogue.latest_model_id())
    catalogue.check_writable()
    model = catalogue.item(MODELS, model_id).properties
    sensor, tile_size = model["rshash:sensor"], model["rshash:tile_size"]
    bands = [band["name"] for band in model["bands"]]
    if not len(current_view(catalogue, sensor, tile_size, bands)):
        raise ModelError(
            f"{catalogue.store} has no tiles that {model_id} can make codes of: tiles of "
            f"{tile_size} m of {sensor} with the bands {', '.join(bands)}. Fetch some with "
            "`rshash ingest`, or name another model with --model."
        )


def check_nightly(parameters: NightlyParameters) -> None:
    """Refuses a night that could not end with codes.

    Raises:
        CatalogueError: The catalogue's folder holds something else, is not writable, or has no such
            model.
        ModelError: The model makes codes of other tiles or bands than those that the night fetches.
        FeatureError: There is no model yet, and no such feature extractor.
        LabelError: There is no model yet, and the labels to learn one are missing or no good.
        TrainingError: There is no model yet, and the area has too few tiles to learn one, or the
            night would not fetch the bands that features are made from.
    """
    catalogue = Catalogue.open_or_create(parameters.catalog)
    catalogue.check_writable()
    if parameters.model is not None or catalogue.latest_model_id() is not None:
        _check_model_fits(catalogue, parameters)
    else:
        known = known_tiles(catalogue, parameters.sensors[0], parameters.tile_size)
        area = tiles_covering(
            parse_area(parameters.area, parameters.tile_size), parameters.tile_size
        )
        tiles = known | {tile.id for tile in area}
        extractors = extractors_for(parameters)
        for sensor, extractor in extractors.items():
            lacking = not_fetched(parameters, sensor, extractor.bands)
            if lacking:
                raise TrainingError(f"Features are made {lacking}")
        _check_learning(catalogue, parameters, extractors, tiles, tiles)


def check_evaluate(parameters: EvaluateParameters) -> None:
    """Refuses an evaluation of codes that are not there, or by labels that are not.

    Raises:
        CatalogueError: There is no catalogue, or no such model in it.
        LabelError: There are no such labels, or they are no good.
        QueryError: The model has no codes, or cannot be compared with the other one.
        RshashError: The report's folder is a file.
    """
    catalogue = Catalogue.open(parameters.catalog)
    model_id = catalogue.model_id(parameters.model)
    model = catalogue.item(MODELS, model_id).properties
    if compared_with(catalogue, model_id, parameters.against) is None:
        check_coded(catalogue, model_id)
    if parameters.output is not None and parameters.output.is_file():
        raise RshashError(f"--output {parameters.output} is a file: name a folder for the report.")
    if parameters.labels is not None and not parameters.land_cover:
        tiles = known_tiles(catalogue, model["rshash:sensor"], model["rshash:tile_size"])
        source = label_source(catalogue, parameters)
        load_labels(catalogue, source, tiles, parameters.minimum_share)
    if parameters.land_cover:
        catalogue.check_writable()


def _check_learning(
    catalogue: Catalogue,
    parameters: TrainParameters,
    extractors: dict[str, Extractor],
    tiles: set[str],
    known: set[str],
) -> None:
    """Refuses to learn from tiles; tables may label all that are known."""
    check_processes(parameters.processes)
    settings = settings_for(parameters, extractors[parameters.sensors[0]], len(tiles))
    if isinstance(settings, MrHashSettings):
        resolved_settings(len(tiles), settings)
    elif not parameters.land_cover:
        source = label_source(catalogue, parameters)
        load_labels(catalogue, source, known, parameters.minimum_share)


def _no_tiles(catalogue: Catalogue, sensor: str, tile_size: int) -> str:
    sizes = sorted(current_view(catalogue, sensor).sizes)
    advice = "fetch some with `rshash ingest`, or name another sensor with --sensors"
    if sizes:
        advice = f"it has tiles of {', '.join(map(str, sizes))} m, which --tile-size chooses"
    return f"{catalogue.store} has no tiles of {tile_size} m of {sensor}: {advice}."


def _check_model_fits(catalogue: Catalogue, parameters: NightlyParameters) -> None:
    model_id = catalogue.model_id(parameters.model)
    model = catalogue.item(MODELS, model_id).properties
    sensor, tile_size = model["rshash:sensor"], model["rshash:tile_size"]
    if sensor not in parameters.sensors or tile_size != parameters.tile_size:
        raise ModelError(
            f"Model {model_id} makes codes of tiles of {tile_size} m of {sensor}, but the night "
            f"would fetch tiles of {parameters.tile_size} m of {', '.join(parameters.sensors)}: "
            "fetch the model's tiles, name another model, or learn one first with `rshash ingest` "
            "and `rshash train`."
        )
    lacking = not_fetched(parameters, sensor, [band["name"] for band in model["bands"]])
    if lacking:
        raise ModelError(f"Model {model_id} makes codes {lacking}")
