from datetime import timedelta

import msgspec

from pipeline.clock import SECOND_NS, expiry_ns
from pipeline.models import ChainHeader
from pipeline.speakers import Speakers
from tests.support import chains

NEAR = chains.enriched(3).header
FAR = msgspec.structs.replace(NEAR, expiry=NEAR.expiry + timedelta(days=7))


def at(header: ChainHeader, seconds: float) -> ChainHeader:
    ts = chains.TS_INGEST + int(seconds * SECOND_NS)
    return msgspec.structs.replace(header, ts_ingest=ts)


def test_nearest_chain_alone_speaks_for_its_underlying() -> None:
    speakers = Speakers()
    assert speakers.speaks(at(FAR, 0))
    assert speakers.speaks(at(NEAR, 1))
    assert not speakers.speaks(at(FAR, 2))
    assert speakers.speaks(at(NEAR, 3))


def test_next_chain_speaks_once_the_nearest_has_settled_or_fallen_silent() -> None:
    speakers = Speakers()
    speakers.speaks(at(NEAR, 0))
    assert speakers.speaks(at(FAR, 61))
    settling = (expiry_ns(NEAR.expiry) - chains.TS_INGEST) / SECOND_NS
    speakers.speaks(at(NEAR, settling - 1))
    assert not speakers.speaks(at(FAR, settling - 0.5))
    assert speakers.speaks(at(FAR, settling))


def test_other_underlyings_and_late_chains_have_their_own_say() -> None:
    speakers = Speakers()
    speakers.speaks(at(NEAR, 100))
    other = msgspec.structs.replace(at(FAR, 100), underlying="SENSEX")
    assert speakers.speaks(other)
    assert speakers.speaks(at(FAR, 50))
    assert not speakers.speaks(at(FAR, 101))
