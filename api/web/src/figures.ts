// The page's own figures of the pipeline: age of data, delay to the page, changes, repairs.

import { Spacing } from "./connection.ts";
import { byId, say } from "./document.ts";
import * as format from "./format.ts";

const RATE_WINDOW_MS = 10_000;
const KEPT_DELAYS = 200;

export class Figures {
  readonly #age = byId("age");
  readonly #latency = byId("latency");
  readonly #latencyHigh = byId("latency-high");
  readonly #changes = byId("changes");
  readonly #repairs = byId("repairs");
  readonly #delays: number[] = [];
  #counts: { at: number; legs: number }[] = [];
  #spacing = new Spacing();
  #newest: number | null = null;
  #began = 0;
  #repaired = 0;

  /** Begins anew, as for another chain. */
  restart(): void {
    this.#delays.length = 0;
    this.#counts = [];
    this.#spacing = new Spacing();
    this.#newest = null;
    this.#began = 0;
  }

  /** Takes data of an instant (market ms); `delay_ms` is on the wall, null for a snapshot. */
  note(ingested: number, now: number, legs: number, delay_ms: number | null): void {
    if (this.#newest === null || ingested > this.#newest) this.#newest = ingested;
    this.#spacing.note(ingested);
    this.#began ||= now;
    if (delay_ms === null) return; // a snapshot may be as old as the market's last close
    this.#counts.push({ at: now, legs });
    this.#delays.push(Math.max(0, delay_ms));
    if (this.#delays.length > KEPT_DELAYS) this.#delays.shift();
  }

  noteRepair(): void {
    this.#repaired += 1;
  }

  /** Age of the newest data at market time `now`, in market seconds. */
  age_s(now: number): number | null {
    return this.#newest === null ? null : Math.max(0, (now - this.#newest) / 1_000);
  }

  get spacing_s(): number | null {
    return this.#spacing.seconds;
  }

  /** Writes the figures; `market` is the market's time, `now` the wall's. */
  show(market: number, now: number): void {
    this.#counts = this.#counts.filter(({ at }) => now - at < RATE_WINDOW_MS);
    const legs = this.#counts.reduce((sum, each) => sum + each.legs, 0);
    const sorted = [...this.#delays].sort((a, b) => a - b);
    say(this.#age, format.age(this.age_s(market)));
    say(this.#latency, format.delay(quantile(sorted, 0.5)));
    say(this.#latencyHigh, format.delay(quantile(sorted, 0.99)));
    const window_ms = Math.min(RATE_WINDOW_MS, Math.max(1_000, now - this.#began));
    const rate = legs / (window_ms / 1_000);
    say(this.#changes, this.#newest === null ? format.ABSENT : format.fixed(rate, rate < 10 ? 1 : 0));
    say(this.#repairs, String(this.#repaired));
  }
}

function quantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
}
