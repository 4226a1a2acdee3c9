// The server's market clock as seen from here. It may run faster than the wall, or be another day.
// Pure: both times are handed in, in ms.

const RATE_FROM_MS = 5_000; // two readings closer than this say nothing of the speed
const RATE_TOLERANCE = 0.02; // within it the clock runs as the wall does, and the wire wobbles

interface Reading {
  readonly server: number;
  readonly local: number;
}

export class MarketClock {
  /** Settles with the first reading. */
  readonly known: Promise<void>;
  #settle: () => void = () => undefined;
  #first: Reading | null = null;
  #newest: Reading | null = null;
  #rate = 1;

  constructor() {
    this.known = new Promise((settle) => (this.#settle = settle));
  }

  /** How many times as fast as the wall it runs. */
  get rate(): number {
    return this.#rate;
  }

  /** Takes the first reading of a connection: the server may be another one than before. */
  begin(server: number, local: number): void {
    this.#first = null;
    this.#rate = 1;
    this.note(server, local);
  }

  /** Takes a reading: the server said `server` at local time `local`. */
  note(server: number, local: number): void {
    const reading = { server, local };
    this.#first ??= reading;
    this.#newest = reading;
    this.#settle();
    const elapsed = local - this.#first.local;
    if (elapsed < RATE_FROM_MS) return;
    const rate = (server - this.#first.server) / elapsed;
    this.#rate = Math.abs(rate - 1) < RATE_TOLERANCE ? 1 : rate;
  }

  /** The server's time at a local time; the local time itself before any reading. */
  at(local: number): number {
    if (!this.#newest) return local;
    return this.#newest.server + (local - this.#newest.local) * this.#rate;
  }
}
