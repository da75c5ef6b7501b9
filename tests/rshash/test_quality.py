import numpy as np
import pytest

from rshash.codes import pack
from rshash.errors import CodeError
from rshash.quality import check_distinct


def codes(tiles: int, distinct: int):
    signs = np.random.default_rng(0).choice([-1, 1], (distinct, 64))
    return pack(signs[np.arange(tiles) % distinct])


@pytest.mark.parametrize(("tiles", "distinct"), [(100, 16), (8, 2), (1, 1)])
def test_codes_that_differ_pass(tiles: int, distinct: int) -> None:
    check_distinct(codes(tiles, distinct), 64, minimum=16)


@pytest.mark.parametrize(("tiles", "distinct"), [(100, 15), (100, 2), (8, 1)])
def test_collapsed_codes_are_refused(tiles: int, distinct: int) -> None:
    with pytest.raises(CodeError, match=f"{tiles} tiles share {distinct} distinct codes"):
        check_distinct(codes(tiles, distinct), 64, minimum=16)
