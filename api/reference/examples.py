"""What the descriptions show: names that a path or a query may have, and answers as they were told.

The answers in `examples.json` were given by a gateway over synthetic data, and were shortened; a
test asks for them again and compares their shapes.
"""

from pathlib import Path
from typing import Any

import msgspec

FILE = Path(__file__).with_name("examples.json")
LIVE_FILE = Path(__file__).with_name("live.json")  # messages of the live feed, by their names

# Parameters of paths, each with its meaning.
PATHS: dict[str, tuple[str, str]] = {
    "underlying": ("an underlying", "NIFTY"),
    "expiry": ("an expiry: `2026-01-27`, `20260127`, or `nearest`", "nearest"),
    "symbol": ("a symbol id", "NIFTY-20260127-25000-CE"),
    "subject": ("a subject of the schema registry", "chain.enriched"),
    "version": ("the number of a version, or `latest`", "latest"),
    "number": ("the id of a schema", "1"),
    "letter_id": ("the id of a dead letter", "1769345400000-0"),
    "dataset": ("what to export", "option_contracts"),
}

LAST_EVENT = "1769335200000000=underlying:NIFTY@41"

# Parameters of queries whose example does not follow from their schema.
PARAMETERS: dict[str, Any] = {
    "q": "nifty 25000 ce",
    "ids": ["NIFTY", "NIFTY-20260127-25000-CE"],
    "around": "atm±5",
    "as_of": "2026-01-25T15:30:00+05:30",
    "start": "2026-01-25",
    "end": "2026-01-26",
    "since": "2026-01-25",
    "updated_since": 1769335200000000000,
    "cursor": "eyJ",
    "expiry": "2026-01-27",
    "expiry.gte": "2026-01-27",
    "expiry.lte": "2026-02-24",
    "strike.gte": 24800,
    "strike.lte": 25200,
    "fields": ["ts_ingest", "last"],
    "interval": "5m",
    "moneyness": [0.95, 1, 1.05],
    "symbol": "NIFTY",
    "underlying": "NIFTY",
    "days": 252,
    "stream": "raw",
    "reason": "undecodable",
    "key": "NIFTY-20260127",
    "group": "processor",
    "subject": "chain.enriched",
    "subjectPrefix": "chain.",
    "format": "json",
    "ts": "rfc3339",
    "channels": ["underlying:NIFTY"],
    "last_event_id": LAST_EVENT,
    "ticket": "st_",
}

EXAMPLES: dict[str, Any] = msgspec.json.decode(FILE.read_bytes()) if FILE.is_file() else {}
LIVE: dict[str, Any] = msgspec.json.decode(LIVE_FILE.read_bytes()) if LIVE_FILE.is_file() else {}
