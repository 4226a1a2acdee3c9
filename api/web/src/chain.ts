// One option chain as the page holds it: legs by symbol, paired by strike, and what has changed.
// Pure; knows nothing of sockets or of the document.

export type Side = "call" | "put";

/** One contract's row, with the field names of the leg layout. Absent is null, never zero. */
export interface Leg {
  readonly symbol: string;
  readonly strike: number;
  readonly kind: Side;
  readonly last: number | null;
  readonly bid: number | null;
  readonly ask: number | null;
  readonly previous_close: number | null;
  readonly bid_size: number | null;
  readonly ask_size: number | null;
  readonly volume: number | null;
  readonly open_interest: number | null;
  readonly previous_open_interest: number | null;
  readonly iv: number | null;
  readonly delta: number | null;
  readonly gamma: number | null;
  readonly theta: number | null;
  readonly vega: number | null;
  readonly rho: number | null;
  readonly iv_fit: number | null;
  readonly iv_provider: number | null;
  readonly delta_provider: number | null;
  readonly iv_status: number;
}

/** The fields of a leg that the page reads; asked for by name, so that nothing else is sent. */
export const LEG_FIELDS: readonly (keyof Leg)[] = [
  ...(["symbol", "strike", "kind", "last", "bid", "ask", "previous_close"] as const),
  ...(["bid_size", "ask_size", "volume", "open_interest", "previous_open_interest"] as const),
  ...(["iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit"] as const),
  ...(["iv_provider", "delta_provider", "iv_status"] as const),
];

export interface Aggregates {
  readonly atm_strike: number | null;
  readonly atm_iv: number | null;
  readonly put_call_ratio_open_interest: number | null;
  readonly put_call_ratio_volume: number | null;
  readonly call_open_interest: number | null;
  readonly put_open_interest: number | null;
  readonly max_pain: number | null;
  readonly skew_25_delta: number | null;
  readonly gamma_exposure: number | null;
  readonly expected_move: number | null;
}

/** How the curve through the volatilities of the expiry turned out; `error` in vol points. */
export interface Smile {
  readonly error: number;
  readonly points: number;
  readonly status: string;
}

/** What holds for every leg. Instants are ns since 1970 UTC. */
export interface Header {
  readonly chain: string;
  readonly underlying: string;
  readonly expiry: string;
  readonly provider: string;
  readonly ts_event: number | null;
  readonly ts_ingest: number;
  readonly spot: number | null;
  readonly forward: number | null;
  readonly forward_pairs: number;
  readonly forward_residual: number | null;
  readonly forward_source: string;
  readonly years: number;
  readonly rate: number;
  readonly lot: number | null;
  readonly n: number;
  readonly aggregates: Aggregates;
  readonly smile: Smile | null;
}

/** The call and the put of one strike; either may not be listed. */
export interface Pair {
  readonly strike: number;
  call: Leg | null;
  put: Leg | null;
}

/** The newest state of one chain. */
export class Chain {
  header: Header | null = null;
  readonly #legs = new Map<string, Leg>();
  readonly #pairs = new Map<number, Pair>();
  #sorted: readonly Pair[] | null = null;

  /** Every pair, by strike. */
  get pairs(): readonly Pair[] {
    this.#sorted ??= [...this.#pairs.values()].sort((a, b) => a.strike - b.strike);
    return this.#sorted;
  }

  get size(): number {
    return this.#legs.size;
  }

  clear(): void {
    this.header = null;
    this.#legs.clear();
    this.#pairs.clear();
    this.#sorted = null;
  }

  /** Forgets everything and takes these legs. */
  replace(header: Header, rows: readonly Leg[]): void {
    this.clear();
    this.merge(header, rows);
  }

  /** Forgets contracts that are listed no longer; returns the strikes they belonged to. */
  remove(symbols: readonly string[]): Set<number> {
    const touched = new Set<number>();
    for (const symbol of symbols) {
      const leg = this.#legs.get(symbol);
      const pair = leg && this.#pairs.get(leg.strike);
      if (!leg || !pair) continue;
      this.#legs.delete(symbol);
      pair[leg.kind] = null;
      touched.add(leg.strike);
      if (!pair.call && !pair.put) {
        this.#pairs.delete(leg.strike);
        this.#sorted = null;
      }
    }
    return touched;
  }

  /** Takes changed legs over what is known; returns the strikes they belong to. */
  merge(header: Header | null, rows: readonly Leg[]): Set<number> {
    if (header) this.header = header;
    const touched = new Set<number>();
    for (const row of rows) {
      const before = this.#legs.get(row.symbol);
      const leg = before ? { ...before, ...row } : row;
      this.#legs.set(leg.symbol, leg);
      this.#pairOf(leg.strike)[leg.kind] = leg;
      touched.add(leg.strike);
    }
    return touched;
  }

  /** The strike at the money: the chain's own, else the one nearest to forward or spot. */
  atTheMoney(): number | null {
    const { header, pairs } = this;
    if (!header || pairs.length === 0) return null;
    const target = header.aggregates.atm_strike ?? header.forward ?? header.spot;
    return target === null ? null : (pairs[nearest(pairs, target)]?.strike ?? null);
  }

  /** Up to `each` strikes below the money, the one at it, and up to `each` above. */
  around(each: number): readonly Pair[] {
    const strike = this.atTheMoney();
    if (strike === null) return [];
    const middle = nearest(this.pairs, strike);
    return this.pairs.slice(Math.max(0, middle - each), middle + each + 1);
  }

  #pairOf(strike: number): Pair {
    let pair = this.#pairs.get(strike);
    if (!pair) {
      pair = { strike, call: null, put: null };
      this.#pairs.set(strike, pair);
      this.#sorted = null;
    }
    return pair;
  }
}

function nearest(pairs: readonly Pair[], target: number): number {
  let best = 0;
  for (let index = 1; index < pairs.length; index += 1) {
    const here = Math.abs((pairs[index] as Pair).strike - target);
    if (here < Math.abs((pairs[best] as Pair).strike - target)) best = index;
  }
  return best;
}
