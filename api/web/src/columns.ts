// What the grid can show of a leg: columns, their words, and the sets a person chooses from. Pure.

import type { Leg } from "./chain.ts";
import * as format from "./format.ts";

export interface Column {
  readonly id: string;
  readonly head: string;
  readonly title: string;
  /** Share of the width. */
  readonly weight: number;
  readonly value: (leg: Leg) => number | null;
  readonly text: (value: number | null) => string;
  /** Whether a change of the value flashes. */
  readonly flashes: boolean;
  /** Whether a bar behind the number shows its share of the largest in the chain. */
  readonly hasBar: boolean;
}

type Extra = Partial<Pick<Column, "weight" | "flashes" | "hasBar">>;

function column(
  id: keyof Leg,
  head: string,
  title: string,
  text: Column["text"],
  extra: Extra = {},
): Column {
  const value = (leg: Leg): number | null => leg[id] as number | null;
  return { id, head, title, text, value, weight: 6, flashes: false, hasBar: false, ...extra };
}

const decimals = (digits: number) => (value: number | null) => format.fixed(value, digits);
const percent = (value: number | null): string => format.percent(value);

const openInterest = column(
  "open_interest",
  "OI",
  "open interest, units",
  format.quantity,
  { weight: 7, hasBar: true },
);
const volume = column("volume", "Vol", "traded in this session, units", format.quantity, {
  weight: 6.5,
});
const iv = column("iv", "IV %", "implied volatility on the parity forward, % per year", percent, {
  weight: 5.5,
});
const ivProvider = column(
  "iv_provider",
  "Prov. IV",
  "the provider's own implied volatility, % per year",
  percent,
);
const delta = column("delta", "Δ", "delta, on the forward", decimals(2), { weight: 5 });
const last = column("last", "LTP", "last traded price", format.price, {
  weight: 7.5,
  flashes: true,
});
const bid = column("bid", "Bid", "best bid", format.price, { weight: 7.5, flashes: true });
const ask = column("ask", "Ask", "best ask", format.price, { weight: 7.5, flashes: true });

const changeOfInterest: Column = {
  ...column("open_interest", "OI chg", "open interest since yesterday's close", format.quantity),
  id: "open_interest_change",
  weight: 7,
  value: ({ open_interest: now, previous_open_interest: before }) =>
    now === null || before === null ? null : now - before,
};

export type SetName = "quotes" | "greeks" | "compare";

/** Columns from the outside to the strike, of the call side; the put side mirrors them. */
export const COLUMN_SETS: Readonly<Record<SetName, readonly Column[]>> = {
  quotes: [openInterest, volume, iv, delta, last, bid, ask],
  greeks: [
    column("rho", "ρ", "rho, rupees per percentage point", decimals(2), { weight: 5.5 }),
    column("vega", "Vega", "vega, rupees per vol point", decimals(2), { weight: 5.5 }),
    column("theta", "Θ", "theta, rupees per calendar day", decimals(2), { weight: 6 }),
    column("gamma", "Γ", "gamma, per rupee", decimals(5), { weight: 6.5 }),
    delta,
    iv,
    last,
  ],
  compare: [
    changeOfInterest,
    column("delta_provider", "Prov. Δ", "the provider's delta, on spot", decimals(2)),
    delta,
    ivProvider,
    iv,
    last,
  ],
};

/** The few columns that fit beside each other on a phone. */
export const NARROW_SETS: Readonly<Record<SetName, readonly Column[]>> = {
  quotes: [openInterest, iv, last],
  greeks: [
    column("theta", "Θ", "theta, rupees per calendar day", decimals(1)),
    column("vega", "Vega", "vega, rupees per vol point", decimals(1)),
    delta,
  ],
  compare: [ivProvider, iv, last],
};
