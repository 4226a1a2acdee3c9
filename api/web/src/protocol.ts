// The messages of `stockify.v1`, and the arithmetic that tells a whole sequence from a broken one.
// Pure; opens nothing. The server sends JSON arrays of messages, the client one object at a time.

import type { Header, Leg } from "./chain.ts";

export const SUBPROTOCOL = "stockify.v1";

export interface Hello {
  readonly type: "hello";
  readonly protocol: string;
  readonly heartbeat_s?: number;
}

export interface Ack {
  readonly type: "ack";
  readonly id: number | string;
  readonly op?: string;
  readonly channels?: readonly string[];
  readonly refused?: readonly Refusal[];
}

export interface Refusal {
  readonly channel: string;
  readonly code: string | number;
  readonly detail: string;
}

export interface Snapshot {
  readonly type: "snapshot";
  readonly channel: string;
  readonly epoch: string;
  readonly seq: number;
  readonly header?: Header | null;
  readonly rows?: readonly Leg[];
}

export interface Update {
  readonly type: "update";
  readonly channel: string;
  readonly epoch: string;
  readonly prev: number;
  readonly seq: number;
  readonly n: number;
  readonly header?: Header | null;
  readonly rows?: readonly Leg[];
}

export interface Skipped {
  readonly type: "skipped";
  readonly channel: string;
  readonly n: number;
  readonly reason: string;
}

export interface Failure {
  readonly type: "error";
  readonly id?: number | string;
  readonly code: string | number;
  readonly detail: string;
}

export interface Heartbeat {
  readonly type: "heartbeat";
}

export type Message = Hello | Ack | Snapshot | Update | Skipped | Failure | Heartbeat;

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
