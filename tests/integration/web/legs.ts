// Legs and headers for the tests of the page's modules.

import type { Aggregates, Header, Leg, Side } from "../../../api/web/src/chain.ts";

export function leg(strike: number, kind: Side, changes: Partial<Leg> = {}): Leg {
  return {
    symbol: `NIFTY-20260127-${strike}-${kind === "call" ? "CE" : "PE"}`,
    strike,
    kind,
    last: 100,
    bid: 99.9,
    ask: 100.1,
    previous_close: 98,
    bid_size: 75,
    ask_size: 150,
    volume: 7_500,
    open_interest: 75_000,
    previous_open_interest: 60_000,
    iv: 0.12,
    delta: 0.5,
    gamma: 0.0005,
    theta: -12,
    vega: 11,
    rho: -0.1,
    iv_fit: 0.121,
    iv_provider: 0.13,
    delta_provider: 0.49,
    iv_status: 0,
    ...changes,
  };
}

export function header(changes: Partial<Header> = {}, aggregates: Partial<Aggregates> = {}): Header {
  return {
    chain: "NIFTY-20260127",
    underlying: "NIFTY",
    expiry: "2026-01-27",
    provider: "simulator",
    ts_event: null,
    ts_ingest: 1.769e18,
    spot: 25_000,
    forward: 25_012,
    forward_pairs: 20,
    forward_residual: 0.2,
    forward_source: "parity",
    years: 2 / 365,
    rate: 0.065,
    lot: 65,
    n: 6,
    aggregates: {
      atm_strike: 25_000,
      atm_iv: 0.12,
      put_call_ratio_open_interest: 0.9,
      put_call_ratio_volume: 0.8,
      call_open_interest: 1,
      put_open_interest: 1,
      max_pain: 25_000,
      skew_25_delta: 0.01,
      gamma_exposure: 1e7,
      expected_move: 222,
      ...aggregates,
    },
    smile: { error: 0.1, points: 6, status: "ok" },
    ...changes,
  };
}
