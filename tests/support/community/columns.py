"""Measures what the columnstore's keys cost and save, in the Community edition in WebAssembly.

    python -m tests.support.community.columns

Prints, for rows and for each choice of segment and order, bytes to bytes and two reads. Made-up
quotes that wander: what is told is one choice beside another, not what a market would need.
"""

import time

from tests.support.community import Community, running_community

CONTRACTS = 200
SNAPSHOTS = 1_500  # a session at one in fifteen seconds
READS = 15
CHOICES = (
    ("instrument_id", "ts, rev"),
    ("", "instrument_id, ts, rev"),
    ("", "ts, instrument_id, rev"),
)
_PRICE = "round(({0} + i + 20 * sin(n / 50.0 + i) + random())::numeric * 20) / 20"
FILL = f"""
INSERT INTO option_contracts (
    ts, instrument_id, volume, last, bid, ask, average, previous_close, bid_size, ask_size,
    open_interest, previous_open_interest, iv, delta, gamma, theta, vega, rho, iv_fit,
    iv_provider, delta_provider, rev, iv_status, price_source, greeks_source
)
SELECT '2026-01-20 03:45Z'::timestamptz + n * INTERVAL '15 s', i, n * 75 * (i % 7),
    {_PRICE.format(100)}, {_PRICE.format(99)}, {_PRICE.format(101)}, 100 + i, 90 + i,
    (random() * 40)::int * 75, (random() * 40)::int * 75, 75 * (1000 + i * 10 + n / 12), 75000,
    0.12 + random() * 0.001, 0.5 + random() * 0.01, random() * 0.001, -random(), 5 + random(),
    random(), 0.12 + random() * 0.0005, round((0.12 + n / 20 * 0.0001)::numeric, 4),
    round((0.5 + n / 20 * 0.001)::numeric, 3), 1, 0, 1, 1
FROM generate_series(0, {SNAPSHOTS - 1}) AS n, generate_series(1, {CONTRACTS}) AS i
"""  # noqa: S608 - numbers of ours
CHAIN = f"""
SELECT sum(last) FROM option_contracts
WHERE ts = '2026-01-20 04:45Z'
    AND instrument_id = ANY(ARRAY(SELECT generate_series(1, {CONTRACTS})))
"""  # noqa: S608 - a number of ours
CONTRACT = """
SELECT sum(last) FROM option_contracts
WHERE instrument_id = 77 AND ts >= '2026-01-20 00:00Z' AND ts < '2026-01-21 00:00Z'
"""
SIZES = """
SELECT before_compression_total_bytes AS rows, after_compression_total_bytes AS columns
FROM hypertable_compression_stats('option_contracts')
"""


def fastest_ms(community: Community, query: str) -> float:
    """The least of some runs, the way to the server and back included."""
    found = []
    for _ in range(READS):
        started = time.perf_counter()
        community.rows(query)
        found.append(time.perf_counter() - started)
    return min(found) * 1_000


def report(community: Community, what: str, ratio: float) -> None:
    chain, contract = fastest_ms(community, CHAIN), fastest_ms(community, CONTRACT)
    print(f"{what:<54} {ratio:5.1f} {chain:10.1f} {contract:12.1f}")


def main() -> None:
    """Fill a day, read it, turn it into columns by each choice, and read it again."""
    with running_community() as community:
        community.run(FILL)
        community.run("ANALYZE option_contracts")
        print(f"{'':<54} {'ratio':>5} {'chain ms':>10} {'contract ms':>12}")
        report(community, "rows", 1.0)
        for segment, order in CHOICES:
            community.run(
                "ALTER TABLE option_contracts SET (timescaledb.enable_columnstore, "
                f"timescaledb.segmentby = '{segment}', timescaledb.orderby = '{order}')"
            )
            community.run("SELECT compress_chunk(c) FROM show_chunks('option_contracts') AS c")
            (size,) = community.rows(SIZES)
            what = f"columns, segment {segment or 'none'}, order {order}"
            report(community, what, size["rows"] / size["columns"])
            community.run("SELECT decompress_chunk(c) FROM show_chunks('option_contracts') AS c")


if __name__ == "__main__":
    main()
