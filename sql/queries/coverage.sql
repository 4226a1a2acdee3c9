-- What was expected, what is there, and why the rest is not.

-- fragment: is_report
-- Whether a line of the ledger is that of a report of polls (pipeline/polls.py) and of no chain.
split_part(ledger.id, ':', 4) = 'polls'

-- name: add_reports
-- Lines for reports of polls; gives the ids that were not there yet.
INSERT INTO ledger (id, stream_id, ts, n)
SELECT added.id, added.stream_id, added.ts, 0
FROM unnest(%(ids)s::text[], %(stream_ids)s::text[], %(ts)s::timestamptz[])
    AS added (id, stream_id, ts)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: count_expected
-- Count polls to the minutes in which they were due, and those missed by cause.
INSERT INTO coverage (minute, symbol, provider, expected, missed_upstream, missed_us)
SELECT
    counted.minute, counted.symbol, counted.provider,
    counted.expected, counted.upstream, counted.us
FROM unnest(
    %(minutes)s::timestamptz[], %(symbols)s::text[], %(providers)s::text[],
    %(expected)s::integer[], %(upstream)s::integer[], %(us)s::integer[]
) AS counted (minute, symbol, provider, expected, upstream, us)
ON CONFLICT (symbol, minute, provider)
DO UPDATE SET
    expected = coverage.expected + excluded.expected,
    missed_upstream = coverage.missed_upstream + excluded.missed_upstream,
    missed_us = coverage.missed_us + excluded.missed_us

-- name: take_touching_gaps
-- Take out the gaps of the same cause that a gap touches, to become one with it.
DELETE FROM gaps
WHERE
    symbol = %(symbol)s AND provider = %(provider)s AND cause = %(cause)s
    AND starts <= %(ends)s AND ends >= %(starts)s
RETURNING starts, ends, missed, detail

-- name: add_gap
-- A gap; one that begins at the same instant for another cause takes it in.
INSERT INTO gaps (starts, ends, missed, symbol, provider, cause, detail)
VALUES (
    %(starts)s, %(ends)s, %(missed)s, %(symbol)s, %(provider)s, %(cause)s, %(detail)s
)
ON CONFLICT (symbol, starts, provider)
DO UPDATE SET
    ends = greatest(gaps.ends, excluded.ends),
    missed = gaps.missed + excluded.missed

-- fragment: coverage_sums
sum(expected)::bigint AS expected, sum(present)::bigint AS present,
sum(missed_upstream)::bigint AS upstream, sum(missed_us)::bigint AS us

-- name: coverage_minutes
-- Minutes of a chain that touch [start, end), oldest first: minute (ns), expected, present, missed
-- by cause; all providers together.
SELECT (extract(epoch FROM minute) * 1000000)::bigint * 1000 AS minute, {coverage_sums}
FROM coverage
WHERE symbol = %(symbol)s AND minute >= %(start)s AND minute < %(end)s
GROUP BY minute
ORDER BY minute

-- name: coverage_chains
-- Of each chain of an underlying, or of every chain there is (NULL), what minutes in [start, end)
-- expected and have.
SELECT symbol, {coverage_sums}
FROM coverage
WHERE
    minute >= %(start)s AND minute < %(end)s
    AND (%(underlying)s::text IS NULL OR left(symbol, -9) = %(underlying)s)
GROUP BY symbol
ORDER BY symbol

-- fragment: gap_values
    (extract(epoch FROM gaps.starts) * 1000000)::bigint * 1000 AS starts,
    (extract(epoch FROM gaps.ends) * 1000000)::bigint * 1000 AS ends,
    missed, symbol, provider, cause, detail

-- name: coverage_gaps
-- Gaps of these chains, or of all (NULL), that reach into [start, end), oldest first: starts and
-- ends (ns), missed (of the whole gap), symbol, provider, cause, detail.
SELECT {gap_values}
FROM gaps
WHERE
    gaps.starts < %(end)s AND gaps.ends > %(start)s
    AND (%(symbols)s::text[] IS NULL OR symbol = ANY(%(symbols)s::text[]))
ORDER BY gaps.starts, symbol, provider

-- fragment: chains_since
-- Chains of an underlying, or of all (NULL), that had not expired on a day; found by their first minutes, of which the
-- key has each at hand.
WITH RECURSIVE chains AS (
    SELECT min(symbol) AS symbol FROM coverage
    UNION ALL
    SELECT (SELECT min(coverage.symbol) FROM coverage WHERE coverage.symbol > chains.symbol)
    FROM chains
    WHERE chains.symbol IS NOT NULL
)
SELECT symbol FROM chains
WHERE
    (%(underlying)s::text IS NULL OR left(symbol, -9) = %(underlying)s::text)
    AND right(symbol, 8) >= to_char(%(start)s::timestamptz, 'YYYYMMDD')

-- name: coverage_summary
-- Of some chains, or of those of an underlying (NULL), or of all (both NULL): what minutes in
-- [start, end) expected and have, the first and the last that a report spoke of (ns), and the newest
-- gaps that reach into [since, until), at most so many, newest first.
WITH asked AS MATERIALIZED (
    SELECT coalesce(%(symbols)s::text[], ARRAY({chains_since})) AS symbols
)
SELECT counted.*, holes.gaps
FROM (
    SELECT
        coalesce(sum(expected), 0)::bigint AS expected,
        coalesce(sum(present), 0)::bigint AS present,
        coalesce(sum(missed_upstream), 0)::bigint AS upstream,
        coalesce(sum(missed_us), 0)::bigint AS us,
        (extract(epoch FROM min(minute) FILTER (WHERE expected > 0)) * 1000000)::bigint * 1000
            AS first_minute,
        (extract(epoch FROM max(minute) FILTER (WHERE expected > 0)) * 1000000)::bigint * 1000
            AS last_minute
    FROM coverage
    WHERE
        symbol = ANY((SELECT symbols FROM asked)::text[])
        AND minute >= %(start)s AND minute < %(end)s
) AS counted
CROSS JOIN (
    SELECT coalesce(json_agg(newest ORDER BY newest.starts DESC, newest.symbol DESC), '[]') AS gaps
    FROM (
        SELECT {gap_values}
        FROM gaps
        WHERE
            symbol = ANY((SELECT symbols FROM asked)::text[])
            AND gaps.starts < %(until)s AND gaps.ends > %(since)s
        ORDER BY gaps.starts DESC, gaps.symbol DESC, gaps.provider DESC
        LIMIT %(most)s
    ) AS newest
) AS holes

-- fragment: listed_gaps
SELECT {gap_values}
FROM gaps
WHERE
    gaps.starts < %(end)s AND gaps.ends > %(start)s
    AND (%(causes)s::text[] IS NULL OR cause = ANY(%(causes)s::text[]))
    AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s::text)
    AND (%(underlying)s::text IS NULL OR left(symbol, -9) = %(underlying)s::text)

-- name: gaps_after
-- Gaps that reach into [start, end) behind a position (NULL: from the first), oldest first.
{listed_gaps}
AND (
    %(after)s::timestamptz IS NULL
    OR (gaps.starts, symbol COLLATE "C", provider COLLATE "C")
    > (%(after)s::timestamptz, %(after_symbol)s::text, %(after_provider)s::text)
)
ORDER BY gaps.starts, symbol COLLATE "C", provider COLLATE "C"
LIMIT %(limit)s

-- name: gaps_after_newest_first
-- Gaps that reach into [start, end) behind a position (NULL: from the last), newest first.
{listed_gaps}
AND (
    %(after)s::timestamptz IS NULL
    OR (gaps.starts, symbol COLLATE "C", provider COLLATE "C")
    < (%(after)s::timestamptz, %(after_symbol)s::text, %(after_provider)s::text)
)
ORDER BY gaps.starts DESC, symbol COLLATE "C" DESC, provider COLLATE "C" DESC
LIMIT %(limit)s

-- name: coverage_tally
-- Of each minute in [start, end) and symbol what coverage says, and what the ledger has.
SELECT
    minute, symbol,
    coalesce(expected, 0) AS expected, coalesce(present, 0) AS present,
    coalesce(upstream, 0) AS upstream, coalesce(us, 0) AS us, coalesce(stored, 0) AS stored
FROM (
    SELECT floor(extract(epoch FROM minute) / 60)::bigint AS minute, symbol, {coverage_sums}
    FROM coverage
    WHERE minute >= %(start)s AND minute < %(end)s
    GROUP BY 1, 2
) AS counted
FULL JOIN (
    SELECT minute, symbol, count(*) AS stored
    FROM ({ledger_entries}) AS entries
    WHERE kind = 'chain'
    GROUP BY minute, symbol
) AS lines USING (minute, symbol)
ORDER BY minute, symbol
