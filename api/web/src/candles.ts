// Candles of one interval, built from prices as they come. Pure.

export interface Candle {
  /** Start of the interval, s since 1970 UTC. */
  readonly time: number;
  open: number;
  high: number;
  low: number;
  close: number;
}

export interface PricePoint {
  /** ms since 1970 UTC. */
  readonly at: number;
  readonly price: number;
}

/** A candle with the instants (ms) of the prices that opened and closed it. */
interface Timed extends Candle {
  opened: number;
  closed: number;
}

/** Candles in time order; a price that comes late is folded in where it belongs. */
export class Candles {
  readonly #interval: number;
  readonly #keep: number;
  #list: Timed[] = [];

  /** `interval` in seconds; beyond `keep` candles the oldest go. */
  constructor(interval = 60, keep = 1_500) {
    this.#interval = interval;
    this.#keep = keep;
  }

  get all(): readonly Candle[] {
    return this.#list;
  }

  clear(): void {
    this.#list = [];
  }

  /** Takes one price; returns its candle, and whether that is the newest one. */
  add({ at, price }: PricePoint): { candle: Candle; isNewest: boolean } {
    const time = Math.floor(at / 1_000 / this.#interval) * this.#interval;
    let index = this.#list.length;
    while (index > 0 && (this.#list[index - 1] as Timed).time > time) index -= 1;
    const isNewest = index === this.#list.length;
    const found = this.#list[index - 1];
    if (found?.time === time) {
      fold(found, at, price);
      return { candle: found, isNewest };
    }
    const candle = { time, open: price, high: price, low: price, close: price };
    this.#list.splice(index, 0, { ...candle, opened: at, closed: at });
    if (this.#list.length > this.#keep) this.#list.shift();
    return { candle, isNewest };
  }

  /** Takes many prices, in any order. */
  load(points: readonly PricePoint[]): void {
    for (const point of [...points].sort((a, b) => a.at - b.at)) this.add(point);
  }
}

function fold(candle: Timed, at: number, price: number): void {
  candle.high = Math.max(candle.high, price);
  candle.low = Math.min(candle.low, price);
  if (at < candle.opened) [candle.opened, candle.open] = [at, price];
  if (at >= candle.closed) [candle.closed, candle.close] = [at, price];
}
