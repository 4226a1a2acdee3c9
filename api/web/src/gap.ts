// How far the call's and the put's implied volatility of one strike are apart. A strike has one
// volatility; where the two sides differ, the forward behind them is wrong. Pure.

import type { Pair } from "./chain.ts";

export interface Gap {
  /** Strikes at which both sides have a volatility. */
  readonly strikes: number;
  /** In vol points (0.01 of volatility); null where no strike has both. */
  readonly median: number | null;
  readonly maximum: number | null;
}

export type VolatilityField = "iv" | "iv_provider";

/** Median and largest |call − put| over these strikes, in vol points. */
export function callPutGap(pairs: readonly Pair[], field: VolatilityField): Gap {
  const gaps: number[] = [];
  for (const { call, put } of pairs) {
    const [ofCall, ofPut] = [call?.[field], put?.[field]];
    if (ofCall != null && ofPut != null) gaps.push(Math.abs(ofCall - ofPut) * 100);
  }
  gaps.sort((a, b) => a - b);
  return { strikes: gaps.length, median: middle(gaps), maximum: gaps.at(-1) ?? null };
}

function middle(sorted: readonly number[]): number | null {
  if (sorted.length === 0) return null;
  const half = sorted.length >> 1;
  const upper = sorted[half] as number;
  return sorted.length % 2 ? upper : (upper + (sorted[half - 1] as number)) / 2;
}
