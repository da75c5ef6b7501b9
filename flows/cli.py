"""The command line: every command's options are the fields of a parameter model."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from pydantic import ValidationError

from flows.catalog_commands import catalog
from flows.parameters import (
    EvaluateParameters,
    IngestFlowParameters,
    NightlyParameters,
    RehashFlowParameters,
    TrainParameters,
)
from flows.publish_command import publish
from flows.quality_parameters import BackfillParameters
from flows.query_parameters import ServeParameters
from flows.saved_commands import saved
from flows.similar_command import similar
from flows.tables import print_rows
from flows.up_parameters import UpParameters
from rshash.errors import RshashError

# A flow's own messages go to the Prefect server; the terminal shows progress and results.
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
os.environ.setdefault("PREFECT_SERVER_API_MAX_PARAMETER_SIZE", "0")

_OTHER_SERVER = os.environ.get("PREFECT_API_URL")

app = App(
    name="rshash",
    help="Similarity search over satellite imagery that keeps itself up to date.",
    help_format="markdown",
    version=lambda: version("rshash"),
    default_parameter=Parameter(negative=(), consume_multiple=True),
)
Flat = Parameter(name="*")
app.command(catalog)
app.command(publish)
app.command(saved)
app.command(similar)


@app.command
def ingest(*, parameters: Annotated[IngestFlowParameters, Flat]) -> None:
    """Fetch new imagery of an area as co-registered tiles.

    Only what the catalogue has not seen yet is read: a run that was cut off is simply started
    again.

    **Example**: Sentinel-2 and Landsat around Tübingen, summer 2024

        rshash ingest --area 8.9,48.4,9.3,48.6 --period 2024-06-01/2024-08-31

    The same with all bands of both, which some networks read: they are fetched beside what is there

        rshash ingest --area 8.9,48.4,9.3,48.6 --period 2024-06-01/2024-08-31 --bands all

    What the tiles of a table of places would cost, from Sentinel-1 too

        rshash ingest --area places.csv --sensors sentinel-2-l2a sentinel-1-rtc --plan
    """
    from flows.checks import check_ingest

    check_ingest(parameters)
    _begin()
    from flows.ingest import ingest as run

    print_rows(run(parameters), "Plan" if parameters.plan else "Ingested")


@app.command
def train(*, parameters: Annotated[TrainParameters | None, Flat] = None) -> None:
    """Learn a hashing model from the catalogue's tiles and publish it.

    The first model is in use at once; `rshash backfill` switches over to any other. A training that
    was interrupted goes on when the same command is started again.

    **Example**: 128-bit codes of Sentinel-2 tiles, learned without labels, together with Landsat

        rshash train --bits 128 --sensors sentinel-2-l2a landsat-c2-l2

    The published settings of MrHash, stopped early, on two GPUs

        rshash train --preset paper --patience 5 --processes 2

    AHCL, learned from a table of labels, from the land cover of Planetary Computer's ESA
    WorldCover, or from the pseudo-labels of the newest MrHash model

        rshash train --method ahcl --labels labels.csv

        rshash train --method ahcl --labels land-cover:esa-worldcover --minimum-share 0.3

        rshash train --method ahcl --labels pseudo

        rshash train --method ahcl --labels labels.csv --preset paper

    Features of a network that torchgeo knows, tuned while the codes are learned

        rshash train --extractor torchgeo --weights ResNet50_Weights.SENTINEL2_RGB_MOCO
        --sensors sentinel-2-l2a --from-pixels

    One that reads all bands, of tiles that were fetched with `rshash ingest --bands all`

        rshash train --extractor torchgeo --weights ResNet50_Weights.SENTINEL2_ALL_MOCO
        --sensors sentinel-2-l2a
    """
    from flows.checks import check_train

    parameters = parameters or TrainParameters()
    check_train(parameters)
    _begin()
    from flows.train import train as run

    print(run(parameters))


@app.command
def rehash(*, parameters: Annotated[RehashFlowParameters | None, Flat] = None) -> None:
    """Make and publish codes for tiles that are new or changed.

    **Example**

        rshash rehash --catalog catalogue

    Codes that fail the quality gate are kept, not published. To publish them after all

        rshash rehash --approve
    """
    from flows.checks import check_rehash

    parameters = parameters or RehashFlowParameters()
    check_rehash(parameters)
    _begin(asks=parameters.on_failure == "ask")
    from flows.rehash import rehash as run

    print_rows(run(parameters), "Code tables published")


@app.command
def backfill(*, parameters: Annotated[BackfillParameters | None, Flat] = None) -> None:
    """Re-hash all tiles by another model, zone by zone, and switch over to it as one.

    Queries are answered by the model in use until every zone is done and its codes have passed the
    quality gate. A backfill that was cut off goes on when it is started again. To go back, see
    `rshash catalog use`.

    Codes of another area or period need no backfill: fetch its tiles with `rshash ingest`, then run
    `rshash rehash`.

    **Example**: switch over to the model that was trained last

        rshash backfill

    Go back to a model before, and bring its codes up to date first

        rshash backfill --model mrhash-64-0a1b2c3d4e
    """
    from flows.checks import check_backfill

    parameters = parameters or BackfillParameters()
    check_backfill(parameters)
    _begin(asks=parameters.on_failure == "ask")
    from flows.backfill import backfill as run

    report = run(parameters)
    print_rows(report["published"], "Code tables published")
    model, before = report["in_use"]["model"], report["in_use"]["in_place_of"]
    print(f"In use: {model}{f', in place of {before}' if before else ', as before'}.")


@app.command
def nightly(*, parameters: Annotated[NightlyParameters, Flat]) -> None:
    """Run a night: ingest what is new, re-hash what changed, publish.

    The first night in a catalogue also trains a model.

    **Example**: the last 30 days around Tübingen

        rshash nightly --area 8.9,48.4,9.3,48.6 --period P30D

    The same; should there be no model yet, it is learned from land cover

        rshash nightly --area 8.9,48.4,9.3,48.6 --method ahcl --labels land-cover:esa-worldcover
    """
    from flows.checks import check_nightly

    check_nightly(parameters)
    _begin(asks=parameters.on_failure == "ask")
    from flows.nightly import nightly as run

    report = run(parameters)
    print_rows(report["ingested"], "Ingested")
    print_rows(report["published"], "Code tables published")
    if report["retraining"]:
        print(report["retraining"])


@app.command
def evaluate(*, parameters: Annotated[EvaluateParameters | None, Flat] = None) -> None:
    """Measure how good published codes are, and write a report with baselines and pictures.

    A model that is not in use is set beside the one in use, on the same tiles; it need not have
    codes yet.

    **Example**: the codes of the model in use, by measures that need no labels

        rshash evaluate

    A model just trained, beside the one in use

        rshash evaluate --model mrhash-64-0a1b2c3d4e

    By the land cover of Planetary Computer's ESA WorldCover, into a folder

        rshash evaluate --labels land-cover:esa-worldcover --output report
    """
    from flows.checks import check_evaluate

    parameters = parameters or EvaluateParameters()
    check_evaluate(parameters)
    _begin()
    from flows.evaluate import evaluate as run

    found = run(parameters)
    print_rows(found["figures"], "Evaluation")
    if "verdict" in found:
        print(found["verdict"])
    print(f"Report: {found['folder'] / 'report.md'}")


@app.command
def tile(lon: float, lat: float, /, *, size: int = 1920) -> None:
    """Tell the ID of the tile that a place belongs to.

    **Example**

        rshash tile 9.06 48.52

    Args:
        lon: Longitude, degrees east.
        lat: Latitude, degrees north.
        size: Tile size, metres.
    """
    from data_catalog.errors import GridError
    from data_catalog.grid import tile_at

    if not -180.0 <= lon <= 180.0:
        raise GridError(f"Longitude {lon:g} is outside -180 to 180; it comes before the latitude.")
    print(tile_at(lon, lat, size).id)


@app.command
def serve(*, parameters: Annotated[ServeParameters | None, Flat] = None) -> None:
    """Answer queries over HTTP, and show a page to explore the tiles.

    Nothing is written; what is published meanwhile is served from then on.

    **Example**: open http://127.0.0.1:8080/ in a browser then

        rshash serve --catalog catalogue
    """
    from flows.serve_command import serve as run

    run(parameters or ServeParameters())


@app.command
def up(*, parameters: Annotated[UpParameters | None, Flat] = None) -> None:
    """Run everything on this machine: Prefect with its UI, the nights, the catalogue service.

    What ends is started again; Ctrl+C ends it all. Everything listens on this machine only, unless
    told otherwise.

    **Example**: every night at two, the last 30 days around Tübingen

        rshash up --area 8.9,48.4,9.3,48.6 --period P30D --catalog catalogue

    At half past three in Berlin, on PostgreSQL; others may use the catalogue service

        export RSHASH_DATABASE=postgresql://prefect:PASSWORD@localhost/prefect

        rshash up --area area.geojson --cron "30 3 * * *" --timezone Europe/Berlin
        --service-host 0.0.0.0

    Without nights: flows are started in the UI

        rshash up --catalog catalogue
    """
    from flows.up import up as run

    run(parameters or UpParameters())


@app.command
def demo(*, folder: Path = Path("demo")) -> None:
    """Show it all on an embedded world: two nights, and a query by tile ID.

    **Example**

        rshash demo --folder demo

    Args:
        folder: Where everything goes; an earlier demo there is replaced.
    """
    from flows.demo import run_demo

    run_demo(folder)


def _begin(*, asks: bool = False) -> None:
    from prefect.settings import PREFECT_API_URL

    from flows.server import is_refused

    if url := PREFECT_API_URL.value():
        if is_refused(url):
            raise RshashError(
                f"No Prefect server answers at {url}: start it, or `unset PREFECT_API_URL`."
            )
        return
    if asks:
        raise RshashError(
            "--on-failure ask needs a Prefect server on whose page somebody can decide: start one "
            "(`rshash up`, or `prefect server start`), then `export "
            "PREFECT_API_URL=http://127.0.0.1:4200/api`."
        )
    print("Starting a temporary Prefect server …", file=sys.stderr, flush=True)


def _explain(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        command = " ".join(["rshash", *(error.command_chain or ())])
        wrong = " ".join(error.unused_tokens or ())
        return f"rshash: {wrong!r} is no command and no option here: see `{command} --help`."
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return f"rshash: {error}"
    lines = []
    for fault in cause.errors():
        option = "--" + str(fault["loc"][0] if fault["loc"] else "").replace("_", "-")
        said = fault["msg"]
        if fault["type"].startswith("datetime"):
            said = "expected a day or a moment, such as 2026-11-20 or 2026-11-20T14:30"
        lines.append(f"rshash: {option} {fault['input']}: {said}")
    return "\n".join(lines)


def _interrupt(*_: object) -> None:
    # At once: what is done is on disk, and Prefect would go on reporting to a server that the same
    # key press has ended. A server of another process is told.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _OTHER_SERVER:
        with suppress(Exception):
            _tell_of_interruption()
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    print(f"{show_cursor}\nInterrupted: start the command again to go on.", file=sys.stderr)
    sys.stderr.flush()
    os._exit(130)


def _tell_of_interruption() -> None:
    from prefect.context import FlowRunContext
    from prefect.runtime import flow_run

    from flows.one_night import crash

    if FlowRunContext.get():
        crash(UUID(str(flow_run.root_flow_run_id)), "Interrupted by Ctrl+C in its shell.")


def main() -> None:
    """Entry point: bad input ends with a clear message and exit status 2."""
    # Ended from outside, a run still stops the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app(sys.argv[1:], exit_on_error=True, print_error=True, error_formatter=_explain)
    except (RshashError, ValidationError, OSError) as error:
        print(f"rshash: {error}", file=sys.stderr)
        sys.exit(2)
