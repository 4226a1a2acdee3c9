-- What a snapshot says of the shape of its chain: skew, gamma exposure, expected move, and the
-- fitted smile. NULL in rows of before and where a chain does not tell; a smile is there whole or
-- not at all.

ALTER TABLE market_snapshots
ADD COLUMN skew_25_delta double precision,
ADD COLUMN gamma_exposure double precision,
ADD COLUMN expected_move double precision,
ADD COLUMN smile_a double precision,
ADD COLUMN smile_b double precision,
ADD COLUMN smile_rho double precision,
ADD COLUMN smile_m double precision,
ADD COLUMN smile_sigma double precision,
ADD COLUMN smile_error double precision,
ADD COLUMN smile_points integer,
ADD COLUMN smile_status text;

ALTER TABLE market_snapshots
ADD CONSTRAINT market_snapshots_move CHECK (expected_move > 0);

ALTER TABLE market_snapshots
ADD CONSTRAINT market_snapshots_smile CHECK (
    num_nulls(
        smile_a, smile_b, smile_rho, smile_m, smile_sigma, smile_error, smile_points, smile_status
    ) IN (0, 8)
    AND smile_b >= 0 AND smile_rho BETWEEN -1 AND 1 AND smile_sigma >= 0
    AND smile_error >= 0 AND smile_points > 0
    AND smile_status IN ('ok', 'poor', 'arbitrage')
);

COMMENT ON COLUMN market_snapshots.skew_25_delta IS
'iv of the put less that of the call of an undiscounted delta of a quarter, decimal per year';
COMMENT ON COLUMN market_snapshots.gamma_exposure IS
'rupees of delta for 1 % of the forward: gamma times open interest, calls less puts';
COMMENT ON COLUMN market_snapshots.expected_move IS
'one standard deviation of the forward until expiry, rupees';
COMMENT ON COLUMN market_snapshots.smile_a IS
'with b, rho, m and sigma the raw SVI of total variance over ln(strike/forward)';
COMMENT ON COLUMN market_snapshots.smile_error IS 'root of the weighted mean square miss, vol points';
COMMENT ON COLUMN market_snapshots.smile_points IS 'legs that the smile was fitted to';
