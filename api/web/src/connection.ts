// What the pill says of the connection, from the few facts it depends on. Pure.

import { age } from "./format.ts";

export type Link = "connecting" | "open" | "reconnecting" | "refused";
export type ConnectionState = "connecting" | "live" | "stale" | "reconnecting" | "signed out";

export interface Facts {
  readonly link: Link;
  /** Age of the newest data in seconds; null before the first. */
  readonly age_s: number | null;
  /** Usual seconds between two chain snapshots; null until known. */
  readonly spacing_s: number | null;
}

export interface Pill {
  readonly state: ConnectionState;
  readonly text: string;
}

const SPACING_FLOOR_S = 3.1; // the provider's own chain limit
const STALE_AFTER_SPACINGS = 5;

/** The state to show. Data is stale once five usual spacings have passed without any. */
export function connectionPill(facts: Facts): Pill {
  const { link, age_s } = facts;
  if (link === "refused") return { state: "signed out", text: "signed out" };
  if (link !== "open") {
    return { state: link, text: age_s === null ? link : `${link} · ${age(age_s)} old` };
  }
  if (age_s === null) return { state: "connecting", text: "waiting for data" };
  const spacing_s = Math.max(facts.spacing_s ?? 0, SPACING_FLOOR_S);
  const state = age_s > spacing_s * STALE_AFTER_SPACINGS ? "stale" : "live";
  return { state, text: `${state} · ${age(age_s)}` };
}

/** The middle of the last few spacings between snapshots; null until two have come. */
export class Spacing {
  readonly #recent: number[] = [];
  #last: number | null = null;

  /** Takes the instant of a snapshot, ms. */
  note(at: number): void {
    if (this.#last !== null && at > this.#last) this.#recent.push((at - this.#last) / 1_000);
    if (this.#recent.length > 9) this.#recent.shift();
    this.#last = at;
  }

  get seconds(): number | null {
    const sorted = [...this.#recent].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? null;
  }
}
