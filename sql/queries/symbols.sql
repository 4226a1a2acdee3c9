-- What there is: underlyings, chains and contracts, from the definitions of the contracts.


-- fragment: symbol_position
underlying COLLATE "C", coalesce(expiry, '-infinity'), coalesce(strike, 0), coalesce(kind, '')

-- fragment: after_position
%(after_underlying)s::text, %(after_expiry)s::date, %(after_strike)s::float8, %(after_kind)s::text

-- fragment: symbols_asked
SELECT *
FROM (
    SELECT
        CASE
            WHEN grouping(strike) = 0 THEN 'contract'
            WHEN grouping(expiry) = 0 THEN 'chain'
            ELSE 'underlying'
        END AS type,
        CASE
            WHEN grouping(strike) = 0 THEN max(symbol)
            WHEN grouping(expiry) = 0 THEN underlying || '-' || to_char(expiry, 'YYYYMMDD')
            ELSE underlying
        END AS symbol,
        underlying, expiry, strike, kind,
        (array_agg(lot ORDER BY valid_from DESC) FILTER (WHERE lot IS NOT NULL))[1] AS lot,
        (extract(epoch FROM min(valid_from)) * 1000000)::bigint * 1000 AS valid_from,
        CASE WHEN max(valid_to) < 'infinity'
            THEN (extract(epoch FROM max(valid_to)) * 1000000)::bigint * 1000
        END AS valid_to,
        count(DISTINCT symbol) AS contracts
    FROM instruments
    WHERE
        symbol ILIKE ALL(%(patterns)s::text[])
        AND (%(underlying)s::text IS NULL OR underlying = %(underlying)s::text)
        AND (%(expiry_from)s::date IS NULL OR expiry >= %(expiry_from)s::date)
        AND (%(expiry_to)s::date IS NULL OR expiry <= %(expiry_to)s::date)
        AND (%(strike_from)s::float8 IS NULL OR strike >= %(strike_from)s::float8)
        AND (%(strike_to)s::float8 IS NULL OR strike <= %(strike_to)s::float8)
        AND (%(kind)s::text IS NULL OR kind = %(kind)s::text)
    GROUP BY GROUPING SETS (
        (underlying), (underlying, expiry), (underlying, expiry, strike, kind)
    )
) AS found
WHERE
    type = ANY(%(types)s::text[])
    AND symbol ILIKE ALL(%(patterns)s::text[])

-- name: find_symbols
-- Underlyings, chains and contracts whose symbol fits every pattern, behind a position, by
-- underlying, expiry, strike and kind: an underlying before its chains, a chain before its contracts.
{symbols_asked}
AND (%(after_underlying)s::text IS NULL OR ({symbol_position}) > ({after_position}))
ORDER BY {symbol_position}
LIMIT %(limit)s

-- name: find_symbols_backwards
-- The same from the end.
{symbols_asked}
AND (%(after_underlying)s::text IS NULL OR ({symbol_position}) < ({after_position}))
ORDER BY
    underlying COLLATE "C" DESC, coalesce(expiry, '-infinity') DESC, coalesce(strike, 0) DESC,
    coalesce(kind, '') DESC
LIMIT %(limit)s
