// The WebSocket side of the page: connects, signs in, subscribes, repairs gaps, reconnects.
// Knows channels and sequences; what rows mean is the business of whoever listens.

import {
  type Ack,
  type Message,
  type Pong,
  Sequence,
  type Snapshot,
  SUBPROTOCOL,
  type Update,
  backoff_ms,
  decodeFrame,
} from "./protocol.ts";
import type { Link } from "./connection.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const SILENCE_MS = 40_000; // the server speaks at least every 15 s, with a heartbeat if need be
const PING_EVERY_MS = 10_000; // reads the server's clock, and proves that the way is open
const SUBSCRIBE_AGAIN_MS = 2_000;
const REFUSING_CLOSE_CODES = new Set([4401, 4403]);

export interface Listener {
  /** The state of the link changed; `detail` says why where a person can do something about it. */
  onLink(link: Link, detail: string | null): void;
  /** A message that fits on what came before it. */
  onMessage(message: Snapshot | Update): void;
  /** The server left something out for this client, or a gap was found; a snapshot follows. */
  onRepair(channel: string): void;
  /** A channel was refused. */
  onRefusal(channel: string, detail: string): void;
  /** The server's clock showed `server` when the local one showed `local`, both ms. */
  onTime(server: number, local: number, isFirst: boolean): void;
}

export class Feed {
  readonly #url: string;
  readonly #interval_ms: number;
  readonly #fields: readonly string[];
  readonly #listener: Listener;
  readonly #sequences = new Map<string, Sequence>();
  #token: string | null = null;
  #socket: WebSocket | null = null;
  #isAuthenticated = false;
  #attempt = 0;
  #nextId = 1;
  #authId = 0;
  #pinged: { readonly id: number; readonly at: number } | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pingTimer: ReturnType<typeof setInterval> | undefined;

  constructor(url: string, interval_ms: number, fields: readonly string[], listener: Listener) {
    this.#url = url;
    this.#interval_ms = interval_ms;
    this.#fields = fields;
    this.#listener = listener;
  }

  /** Connects with this token; what was connected before is closed. */
  start(token: string): void {
    this.stop();
    this.#token = token;
    this.#attempt = 0;
    this.#connect("connecting");
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#token = null;
    const socket = this.#socket;
    if (socket?.readyState === WebSocket.CONNECTING) {
      // Closed at once, it would be told of as a connection that failed.
      this.#socket = null;
      socket.onopen = () => socket.close();
    }
    this.#drop();
  }

  /** Tries at once instead of waiting out the back-off, as when the network is back. */
  retryNow(): void {
    if (this.#token === null || this.#socket !== null) return;
    clearTimeout(this.#timer);
    this.#connect("reconnecting");
  }

  /** From now on exactly these channels are wanted. */
  want(channels: readonly string[]): void {
    const gone = [...this.#sequences.keys()].filter((name) => !channels.includes(name));
    const added = channels.filter((name) => !this.#sequences.has(name));
    for (const name of gone) this.#sequences.delete(name);
    for (const name of added) this.#sequences.set(name, new Sequence());
    if (!this.#isAuthenticated) return;
    if (gone.length) this.#send("unsubscribe", { channels: gone });
    if (added.length) this.#subscribe(added);
  }

  #connect(link: Link): void {
    this.#listener.onLink(link, null);
    const socket = new WebSocket(this.#url, [SUBPROTOCOL]);
    this.#socket = socket;
    this.#isAuthenticated = false;
    this.#expectWithin(CONNECT_TIMEOUT_MS);
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data as string);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#lost(event.code, event.reason);
    };
  }

  #receive(text: string): void {
    this.#expectWithin(SILENCE_MS);
    for (const message of decodeFrame(text)) {
      if (this.#socket === null) return;
      this.#handle(message);
    }
  }

  #handle(message: Message): void {
    switch (message.type) {
      case "hello":
        this.#listener.onTime(Date.parse(message.ts), Date.now(), true);
        this.#authId = this.#send("auth", { token: this.#token });
        return;
      case "ack":
        this.#acknowledged(message);
        return;
      case "snapshot":
      case "update":
        this.#judge(message);
        return;
      case "skipped":
        this.#sequences.get(message.channel)?.reset();
        this.#listener.onRepair(message.channel);
        return;
      case "pong":
        this.#timed(message);
        return;
      case "error":
        console.warn(`the server said ${message.code}: ${message.detail}`);
        // The latest values may be away for a moment; the same wish is good again then.
        if (message.code === "unavailable") setTimeout(() => this.#wish(), SUBSCRIBE_AGAIN_MS);
        return;
      default: // a heartbeat, or a message of a later server
    }
  }

  #timed({ id, ts }: Pong): void {
    if (this.#pinged?.id !== id) return;
    const now = Date.now();
    this.#listener.onTime(Date.parse(ts), (this.#pinged.at + now) / 2, false);
  }

  #ping(): void {
    this.#pinged = { at: Date.now(), id: this.#send("ping", {}) };
  }

  #acknowledged(ack: Ack): void {
    for (const { channel, detail } of ack.refused ?? []) {
      this.#listener.onRefusal(channel, detail);
    }
    if (ack.id !== this.#authId || this.#isAuthenticated) return;
    this.#isAuthenticated = true;
    this.#attempt = 0;
    this.#listener.onLink("open", null);
    this.#ping();
    this.#pingTimer = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#wish();
  }

  /** Subscribes to everything that is wanted, from the beginning. */
  #wish(): void {
    if (!this.#isAuthenticated || this.#sequences.size === 0) return;
    for (const sequence of this.#sequences.values()) sequence.reset();
    this.#subscribe([...this.#sequences.keys()]);
  }

  #judge(message: Snapshot | Update): void {
    const verdict = this.#sequences.get(message.channel)?.judge(message);
    if (verdict === "apply") this.#listener.onMessage(message);
    if (verdict === "gap") {
      this.#listener.onRepair(message.channel);
      this.#send("resync", { channels: [message.channel] });
    }
  }

  #subscribe(channels: readonly string[]): void {
    const chains = channels.filter((name) => name.startsWith("chain:"));
    const others = channels.filter((name) => !name.startsWith("chain:"));
    const interval_ms = this.#interval_ms;
    if (chains.length) {
      this.#send("subscribe", { channels: chains, interval_ms, fields: this.#fields });
    }
    if (others.length) this.#send("subscribe", { channels: others, interval_ms });
  }

  #send(op: string, fields: Record<string, unknown>): number {
    const id = this.#nextId;
    this.#nextId += 1;
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ op, id, ...fields }));
    }
    return id;
  }

  #lost(code: number, reason: string): void {
    if (REFUSING_CLOSE_CODES.has(code)) {
      this.#refuse(reason);
      return;
    }
    this.#drop();
    this.#listener.onLink("reconnecting", reason || null);
    const wait_ms = backoff_ms(this.#attempt, Math.random());
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect("reconnecting"), wait_ms);
  }

  #refuse(detail: string): void {
    this.stop();
    this.#listener.onLink("refused", detail || "the token was refused");
  }

  #expectWithin(limit_ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lost(1006, "no answer"), limit_ms);
  }

  #drop(): void {
    const socket = this.#socket;
    this.#socket = null;
    this.#isAuthenticated = false;
    this.#pinged = null;
    clearInterval(this.#pingTimer);
    socket?.close();
  }
}
