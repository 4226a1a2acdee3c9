// The few REST calls of the page. A problem document becomes a `Problem`, a 401 says so itself.

import type { PricePoint } from "./candles.ts";

const HISTORY_LIMIT = 10_000;

export interface Underlying {
  readonly symbol: string;
}

export interface Expiry {
  readonly expiry: string;
  readonly is_expired: boolean;
  /** When its newest chain was received; null where none was yet. */
  readonly ts_ingest: string | null;
}

/** An answer other than data, in the server's own words. */
export class Problem extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }

  get isAboutToken(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export class Rest {
  readonly #token: () => string | null;

  constructor(token: () => string | null) {
    this.#token = token;
  }

  underlyings(): Promise<readonly Underlying[]> {
    return this.#list<Underlying>("/v1/underlyings");
  }

  expiries(underlying: string): Promise<readonly Expiry[]> {
    return this.#list<Expiry>(`/v1/underlyings/${encodeURIComponent(underlying)}/expiries`);
  }

  /** The newest prices of an underlying since an instant (ms), as one of its chains saw them. */
  async prices(underlying: string, expiry: string, since: number): Promise<readonly PricePoint[]> {
    const order = { order: "desc", limit: String(HISTORY_LIMIT) };
    return this.#history(underlying, { start: new Date(since).toISOString(), expiry, ...order });
  }

  /** The first price of an underlying since an instant (ms); null where there is none. */
  async firstPrice(underlying: string, since: number): Promise<number | null> {
    const query = { start: new Date(since).toISOString(), limit: "1" };
    return (await this.#history(underlying, query))[0]?.price ?? null;
  }

  async #history(
    underlying: string,
    parameters: Readonly<Record<string, string>>,
  ): Promise<readonly PricePoint[]> {
    const query = new URLSearchParams({ ...parameters, ts: "ms", fields: "ts_ingest,spot" });
    const path = `/v1/underlyings/${encodeURIComponent(underlying)}/history?${query}`;
    const rows = await this.#list<{ ts_ingest: number; spot: number | null }>(path);
    return rows.flatMap(({ ts_ingest, spot }) =>
      spot === null ? [] : [{ at: ts_ingest, price: spot }],
    );
  }

  async #list<Row>(path: string): Promise<readonly Row[]> {
    const token = this.#token();
    const headers: HeadersInit = { accept: "application/json" };
    if (token) headers["authorization"] = `Bearer ${token}`;
    const response = await fetch(path, { headers });
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new Problem(response.status, detailOf(body, response));
    return (body as { data: readonly Row[] }).data;
  }
}

function detailOf(body: unknown, response: Response): string {
  const { detail, title } = (body ?? {}) as { detail?: string; title?: string };
  return detail ?? title ?? `${response.status} ${response.statusText}`;
}
