"""Publishing that is killed at any moment loses nothing, and no reader ever sees half of it."""

import multiprocessing
import random
import signal
import time
from pathlib import Path

from killed_publishing import PLACES, Reader, nights_of, publish
from published_world import index, make_model, publish_segment
from stac_schemas import assert_catalogue_valid

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of
from data_catalog.models import publish_model
from data_catalog.verification import verify

KILLS = 30

PROCESSES = multiprocessing.get_context("forkserver")


def run(
    root: Path, number: int, moment: int | None = None, kill_after: float | None = None
) -> tuple[int, float] | None:
    """Publishes a night; returns None if it was killed, as it mostly is."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=publish, args=(root, number, moment, there))
    process.start()
    there.close()
    assert here.recv() == "begun"
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    try:
        moments, seconds = here.recv()
        return moments, seconds
    except EOFError:
        return None
    finally:
        process.join()
        assert process.exitcode in ((0,) if moment == kill_after else (0, -signal.SIGKILL))


def test_publishing_that_is_killed_leaves_whole_versions_only(tmp_path: Path) -> None:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    root, model = catalogue.root, make_model()
    publish_model(catalogue, model)
    clouds = index(PLACES).assign(state="invalid", reason="cloud")
    publish_segment(catalogue, "clouds", clouds)
    run(root, 1)
    whole = run(root, 2)
    assert whole is not None and nights_of(root, model.model_id) == [2, 2]
    moments, seconds = whole
    chance = random.Random(5)
    reader = Reader(root, model.model_id)
    reader.start()
    killed, newest, begun = 0, [2, 2], 2
    for kill in range(KILLS):
        begun += 1
        if kill % 2:
            killed += run(root, begun, kill_after=chance.uniform(0.0, seconds)) is None
        else:
            killed += run(root, begun, moment=chance.randrange(1, moments)) is None
        found = nights_of(root, model.model_id)
        assert all(night in (before, begun) for night, before in zip(found, newest, strict=True))
        assert verify(catalogue) == []
        newest = found
    reader.end()
    assert reader.failure is None and reader.reads
    assert killed >= KILLS / 2 and max(newest) > 2
    run(root, begun + 1)
    assert nights_of(root, model.model_id) == [begun + 1] * 2
    assert_catalogue_valid(root)
    for item_id in catalogue.item_ids(collection_of(model.model_id)):
        versions = catalogue.versions(collection_of(model.model_id), item_id)
        assert versions[-1] == item_id and len(versions) > 2
