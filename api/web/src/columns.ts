// What the grid can show of a leg: columns, the sets a person chooses from, and which of them fit
// a width. Pure.

import type { Leg } from "./chain.ts";
import * as format from "./format.ts";

export interface Column {
  readonly id: string;
  readonly head: string;
  readonly title: string;
  /** Least width, in digits as `digitsOf` counts them; a wider number makes its column wider. */
  readonly digits: number;
  /** Room goes to the lowest rank first; columns of one rank come and go together. */
  readonly rank: number;
  readonly value: (leg: Leg) => number | null;
  readonly text: (value: number | null) => string;
  /** Whether a change of the value flashes. */
  readonly flashes: boolean;
  /** Whether a bar behind the number shows its share of the largest in the chain. */
  readonly hasBar: boolean;
}

export const STRIKE_DIGITS = 6;
export const CELL_PADDING_PX = 9; // as styles.css says, both sides, and a hair

type Shape = Partial<Pick<Column, "flashes" | "hasBar">> & Pick<Column, "digits" | "rank">;

function column(
  id: keyof Leg,
  head: string,
  title: string,
  text: Column["text"],
  shape: Shape,
): Column {
  const value = (leg: Leg): number | null => leg[id] as number | null;
  return { id, head, title, text, value, flashes: false, hasBar: false, ...shape };
}

const decimals = (digits: number) => (value: number | null) => format.fixed(value, digits);
const percent = (value: number | null): string => format.percent(value);

const openInterest = column("open_interest", "OI", "open interest, units", format.quantity, {
  digits: 5.5,
  rank: 3,
  hasBar: true,
});
const volume = column("volume", "Vol", "traded in this session, units", format.quantity, {
  digits: 5.5,
  rank: 7,
});
const iv = column("iv", "IV %", "implied volatility on the parity forward, % per year", percent, {
  digits: 4.5,
  rank: 2,
});
const ivProvider = column(
  "iv_provider",
  "Prov. IV",
  "the provider's own implied volatility, % per year",
  percent,
  { digits: 6, rank: 2 },
);
const delta = column("delta", "Δ", "delta, on the forward", decimals(2), { digits: 4, rank: 6 });
const deltaProvider = column(
  "delta_provider",
  "Prov. Δ",
  "the provider's delta, on spot",
  decimals(2),
  { digits: 5.5, rank: 7 },
);
const priceShape = { digits: 6.5, flashes: true };
const last = column("last", "LTP", "last traded price", format.price, { ...priceShape, rank: 1 });
const bid = column("bid", "Bid", "best bid", format.price, { ...priceShape, rank: 5 });
const ask = column("ask", "Ask", "best ask", format.price, { ...priceShape, rank: 5 });
const gamma = column("gamma", "Γ", "gamma, per rupee", decimals(5), { digits: 6.5, rank: 8 });
const theta = column("theta", "Θ", "theta, rupees per calendar day", decimals(2), {
  digits: 5.5,
  rank: 5,
});
const vega = column("vega", "Vega", "vega, rupees per vol point", decimals(2), {
  digits: 4.5,
  rank: 3,
});
const rho = column("rho", "ρ", "rho, rupees per percentage point", decimals(2), {
  digits: 4.5,
  rank: 9,
});

const changeOfInterest: Column = {
  ...openInterest,
  id: "open_interest_change",
  head: "OI chg",
  title: "open interest since yesterday's close, units",
  rank: 8,
  hasBar: false,
  value: ({ open_interest: now, previous_open_interest: before }) =>
    now == null || before == null ? null : now - before,
};

export type SetName = "quotes" | "greeks" | "compare";

/** Columns from the outside to the strike, of the call side; the put side mirrors them. */
export const COLUMN_SETS: Readonly<Record<SetName, readonly Column[]>> = {
  quotes: [openInterest, volume, iv, delta, last, bid, ask],
  greeks: [rho, vega, theta, gamma, delta, iv, last],
  compare: [changeOfInterest, deltaProvider, delta, ivProvider, iv, last],
};

/** How many digits wide a number is; points and commas are about half as wide as a digit. */
export function digitsOf(text: string): number {
  let digits = 0;
  for (const character of text) digits += character === "." || character === "," ? 0.5 : 1;
  return digits;
}

/** Those of a set that fit beside their mirror image, in order; `cell_px` is a column's width. */
export function fitting(
  columns: readonly Column[],
  width_px: number,
  strike_px: number,
  cell_px: (column: Column) => number,
): readonly Column[] {
  let kept: readonly Column[] = [];
  const ranks = [...new Set(columns.map(({ rank }) => rank))].sort((a, b) => a - b);
  for (const rank of ranks) {
    const more = columns.filter((each) => kept.includes(each) || each.rank === rank);
    const needed = more.reduce((sum, column) => sum + 2 * cell_px(column), strike_px);
    if (needed <= width_px || kept.length === 0) kept = more;
  }
  return kept;
}
