// The messages of `stockify.v1`, and the arithmetic that tells a whole sequence from a broken one.
// Pure; opens nothing. The server sends JSON arrays of messages, the client one object at a time.

import type { Header, Leg } from "./chain.ts";

export const SUBPROTOCOL = "stockify.v1";

export interface Hello {
  readonly type: "hello";
  readonly protocol: string;
  /** The server's market clock, RFC 3339. */
  readonly ts: string;
  readonly heartbeat_s: number;
}

export interface Ack {
  readonly type: "ack";
  readonly id: number | string | null;
  readonly op: string;
  /** Every channel that is subscribed now. */
  readonly channels?: readonly string[];
  readonly refused?: readonly Refusal[];
}

export interface Refusal {
  readonly channel: string;
  readonly code: string;
  readonly detail: string;
}

/** A chain's header goes with its legs; an underlying has no header, and one row of its own. */
interface Content {
  readonly channel: string;
  readonly epoch: string;
  readonly seq: number;
  readonly as_of: string;
  readonly header?: Header;
  readonly rows: readonly (Leg | UnderlyingRow)[];
}

export interface UnderlyingRow {
  readonly symbol: string;
  readonly ts_ingest: number;
  readonly spot: number | null;
}

export interface Snapshot extends Content {
  readonly type: "snapshot";
}

export interface Update extends Content {
  readonly type: "update";
  /** The position this update builds on. */
  readonly prev: number;
  /** How many changes it merges. */
  readonly n: number;
  /** Symbols that are listed no longer. */
  readonly removed?: readonly string[];
}

export interface Skipped {
  readonly type: "skipped";
  readonly channel: string;
  readonly n: number;
  readonly reason: string;
}

export interface Failure {
  readonly type: "error";
  readonly id: number | string | null;
  readonly code: string;
  readonly detail: string;
}

export interface Heartbeat {
  readonly type: "heartbeat";
  readonly ts: string;
}

export interface Pong {
  readonly type: "pong";
  readonly id: number | string | null;
  readonly ts: string;
}

export type Message = Hello | Ack | Snapshot | Update | Skipped | Failure | Heartbeat | Pong;

/** The messages of one text frame. Raises SyntaxError or TypeError where it is none. */
export function decodeFrame(text: string): readonly Message[] {
  const messages: unknown = JSON.parse(text);
  if (!Array.isArray(messages)) throw new TypeError("a frame is an array of messages");
  return messages as readonly Message[];
}

export type Verdict = "apply" | "gap" | "ignore";

/** Where one channel stands. An update fits only on the very message it names in `prev`. */
export class Sequence {
  #epoch: string | null = null;
  #seq = -1;

  /** Whether a snapshot is the next thing that can be used. */
  get isWaiting(): boolean {
    return this.#epoch === null;
  }

  /** Forgets the position: until a snapshot comes, updates are ignored. */
  reset(): void {
    this.#epoch = null;
    this.#seq = -1;
  }

  /** Takes a message's position; `gap` means that a resync must be asked for, once. */
  judge(message: Snapshot | Update): Verdict {
    if (message.type === "snapshot") {
      this.#epoch = message.epoch;
      this.#seq = message.seq;
      return "apply";
    }
    if (this.#epoch === null) return "ignore";
    if (message.epoch === this.#epoch) {
      if (message.seq <= this.#seq) return "ignore";
      if (message.prev === this.#seq) {
        this.#seq = message.seq;
        return "apply";
      }
    }
    this.reset();
    return "gap";
  }
}

/** Milliseconds before attempt `attempt` (from 0): doubling, capped, spread by `random` in [0, 1). */
export function backoff_ms(attempt: number, random: number): number {
  const ceiling = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(ceiling * (0.5 + random / 2));
}
