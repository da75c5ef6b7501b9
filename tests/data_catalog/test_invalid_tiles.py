from pathlib import Path

from published_world import SENSOR, index, publish_segment, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.invalid_tiles import invalid_causes


def test_invalid_tiles_are_counted_by_cause_without_secrets(tmp_path: Path) -> None:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    table = index(tiles(8))
    table.loc[2:, "state"] = "invalid"
    table.loc[2:4, "reason"] = [f"not clear: 0.{n} at best, in S2A_1" for n in (1, 3, 2)]
    table.loc[2:4, "clear_fraction"] = [0.1, 0.3, 0.2]
    table.loc[5:, "reason"] = "unreadable: S2A_1, B04: https://a.example/B04.tif?sig=abc: 404"
    table.loc[5:, "clear_fraction"] = 0.0
    table.loc[7, "reason"] = "not observed: no scene has pixels here"
    publish_segment(catalogue, "one", table)
    (segment,) = catalogue.items(f"tiles-{SENSOR}")
    unclear, unreadable, unseen = invalid_causes(catalogue, segment)
    assert (unclear["cause"], unclear["tiles"], unclear["clearest"]) == ("not clear", 3, 0.3)
    assert unclear["such as"].split(", ") == [tile.id for tile in tiles(8)[2:5]]
    assert "S2A_1, B04" in unreadable["cause"] and unreadable["tiles"] == 2
    assert "sig" not in unreadable["cause"]
    assert (unseen["cause"], unseen["tiles"]) == ("not observed", 1)
