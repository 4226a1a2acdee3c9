// The page as a whole: which chain is chosen, what its messages change, when what is drawn.

import { Chain, type Header, LEG_FIELDS, type Leg } from "./chain.ts";
import { MarketClock } from "./clock.ts";
import { COLUMN_SETS, type SetName } from "./columns.ts";
import { type Link, connectionPill } from "./connection.ts";
import { byId, say } from "./document.ts";
import { Feed } from "./feed.ts";
import { Figures } from "./figures.ts";
import { date, IST_OFFSET_S } from "./format.ts";
import { ChainGrid } from "./grid.ts";
import { Picker } from "./picker.ts";
import { InterestPlot, SmilePlot, type SmileView } from "./plots.ts";
import { PriceChart } from "./price.ts";
import type { Snapshot, UnderlyingRow, Update } from "./protocol.ts";
import { Problem, Rest } from "./rest.ts";
import { SignIn } from "./signin.ts";
import * as session from "./session.ts";
import { Summary } from "./summary.ts";

const INTERVAL_MS = 250; // a person sees no more than four changes a second
const TICK_MS = 500; // also how often the plots follow, which cost more than cells
const RELOAD_EVERY_MS = 60_000; // new expiries appear, and old ones go, while the page is open

export class App {
  readonly #chain = new Chain();
  readonly #grid = new ChainGrid(byId("grid"));
  readonly #smile = new SmilePlot(byId("smile"));
  readonly #interest = new InterestPlot(byId("interest"));
  readonly #price = new PriceChart(byId("price"));
  readonly #summary = new Summary();
  readonly #figures = new Figures();
  readonly #clock = new MarketClock();
  readonly #signIn = new SignIn((token) => this.#enter(token));
  readonly #picker = new Picker((underlying, expiry) => this.#choose(underlying, expiry));
  readonly #rest = new Rest(() => this.#token);
  readonly #feed: Feed;
  readonly #empty = byId("chain-empty");
  readonly #toMoney = byId("to-money");
  #token: string | null = null;
  #link: Link = "connecting";
  #columns: SetName = "quotes";
  #underlying: string | null = null;
  #channel: string | null = null;
  #isFirstShow = true;
  #touched: Set<number> | null = new Set();
  #mayFlash = false;
  #frame = 0;
  #plotsAreDue = false;
  #spotAt = 0;
  #spot: number | null = null;
  #firstOfDay: number | null = null;

  constructor() {
    const url = `${location.origin.replace(/^http/, "ws")}/v1/ws`;
    this.#feed = new Feed(url, INTERVAL_MS, LEG_FIELDS, {
      onLink: (link, detail) => this.#linked(link, detail),
      onMessage: (message) => this.#receive(message),
      onRepair: () => this.#figures.noteRepair(),
      onRefusal: (channel, detail) => this.#refused(channel, detail),
      onTime: (server, local, isFirst) =>
        isFirst ? this.#clock.begin(server, local) : this.#clock.note(server, local),
    });
  }

  /** Starts everything: with the token of this tab, or by asking for one. */
  start(): void {
    this.#grid.choose(COLUMN_SETS[this.#columns]);
    this.#listen();
    const token = session.takeToken();
    if (token) void this.#enter(token);
    else this.#linked("refused", null);
    setInterval(() => this.#tick(), TICK_MS);
    setInterval(() => void this.#reload(), RELOAD_EVERY_MS);
  }

  #listen(): void {
    addEventListener("online", () => this.#feed.retryNow());
    addEventListener("hashchange", () => {
      const token = session.takeToken();
      if (token && token !== this.#token) void this.#enter(token);
    });
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#feed.retryNow();
    });
    byId("columns").addEventListener("change", (event) => {
      this.#columns = (event.target as HTMLInputElement).value as SetName;
      const { scrollTop } = byId("grid");
      this.#grid.choose(COLUMN_SETS[this.#columns]);
      this.#drawAll(scrollTop);
    });
    new ResizeObserver(() => {
      const { scrollTop } = byId("grid");
      if (this.#grid.fit()) this.#drawAll(scrollTop);
    }).observe(byId("grid"));
    byId("smile-view").addEventListener("change", (event) => {
      this.#smile.choose((event.target as HTMLInputElement).value as SmileView);
      this.#plotsAreDue = true;
      this.#drawPlots();
    });
    byId("grid").addEventListener("scroll", () => this.#offerMoney(), { passive: true });
    this.#toMoney.addEventListener("click", () => this.#grid.centre());
  }

  async #enter(token: string): Promise<void> {
    this.#token = token;
    session.keepToken(token);
    this.#signIn.hide();
    this.#feed.start(token);
    await this.#reload();
  }

  async #reload(): Promise<void> {
    if (this.#token === null) return;
    try {
      const wanted = session.selectionFromAddress();
      await this.#picker.load(this.#rest, wanted);
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (error instanceof Problem && error.isAboutToken) {
      this.#feed.stop();
      this.#linked("refused", error.message);
      return;
    }
    // The socket's own back-off tells of a gateway that is away; a later reload tries again.
    if (this.#chain.size === 0) say(this.#empty, `No list of chains: ${String(error)}`);
  }

  #choose(underlying: string, expiry: string): void {
    session.putSelectionInAddress(underlying, expiry);
    const chain = `chain:${underlying}-${expiry.replaceAll("-", "")}`;
    if (chain === this.#channel) return;
    this.#channel = chain;
    this.#forget(`Waiting for the first snapshot of ${underlying} ${date(expiry)}…`);
    document.title = `${underlying} ${date(expiry)} · Stockify`;
    this.#feed.want([chain, `underlying:${underlying}`]);
    if (underlying !== this.#underlying) {
      this.#underlying = underlying;
      [this.#spot, this.#firstOfDay, this.#spotAt] = [null, null, 0];
      this.#summary.showSpot(null, null);
      this.#price.clear();
      void this.#loadHistory(underlying, expiry);
    }
  }

  #forget(reason: string): void {
    this.#chain.clear();
    this.#grid.clear();
    this.#summary.clear();
    this.#figures.restart();
    this.#smile.clear();
    this.#interest.clear();
    this.#isFirstShow = true;
    this.#touched = new Set();
    say(this.#empty, reason);
    this.#empty.hidden = false;
    this.#toMoney.hidden = true;
  }

  async #loadHistory(underlying: string, expiry: string): Promise<void> {
    await this.#clock.known;
    const today = startOfIndianDay(this.#clock.at(Date.now()));
    try {
      const [points, first] = await Promise.all([
        this.#rest.prices(underlying, expiry, today),
        this.#rest.firstPrice(underlying, today),
      ]);
      if (underlying !== this.#underlying) return;
      this.#price.load(points);
      this.#firstOfDay = first;
      this.#summary.showSpot(this.#spot, first);
    } catch (error) {
      if (error instanceof Problem && error.isAboutToken) this.#failed(error);
      else console.warn("no history of the price:", String(error)); // candles then begin now
    }
  }

  #linked(link: Link, detail: string | null): void {
    this.#link = link;
    if (link === "refused") {
      session.forgetToken();
      this.#token = null;
      this.#signIn.ask(detail ?? "");
    }
    this.#tick();
  }

  #refused(channel: string, detail: string): void {
    if (channel !== this.#channel) return;
    this.#channel = null; // the next reading of the lists asks for it again
    this.#feed.want([]);
    if (this.#chain.size === 0) say(this.#empty, `${channel.replace("chain:", "")}: ${detail}`);
  }

  #receive(message: Snapshot | Update): void {
    if (message.channel === this.#channel) this.#receiveChain(message);
    else if (message.channel === `underlying:${this.#underlying}`) {
      for (const { spot, ts_ingest } of message.rows as readonly UnderlyingRow[]) {
        this.#noteSpot(spot, ts_ingest / 1e6);
      }
    }
  }

  #receiveChain(message: Snapshot | Update): void {
    const { header } = message;
    const rows = message.rows as readonly Leg[];
    if (!header) return;
    if (message.type === "snapshot") {
      this.#chain.replace(header, rows);
      this.#touched = null;
      this.#mayFlash = false;
    } else {
      const changed = this.#chain.merge(header, rows);
      const gone = this.#chain.remove(message.removed ?? []);
      for (const strike of [...changed, ...gone]) this.#touched?.add(strike);
      this.#mayFlash = this.#touched !== null;
    }
    this.#noteChain(header, message.type === "update" ? rows.length : null);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #noteChain({ ts_ingest, spot }: Header, legs: number | null): void {
    const at = ts_ingest / 1e6;
    const now = Date.now();
    const delay_ms = legs === null ? null : (this.#clock.at(now) - at) / this.#clock.rate;
    this.#figures.note(at, now, legs ?? 0, delay_ms);
    this.#noteSpot(spot, at);
  }

  #noteSpot(spot: number | null, at: number): void {
    if (spot === null || at <= this.#spotAt) return;
    [this.#spot, this.#spotAt] = [spot, at];
    this.#price.add({ at, price: spot });
    this.#summary.showSpot(spot, this.#firstOfDay);
  }

  #draw(): void {
    this.#frame = 0;
    const { header } = this.#chain;
    if (!header) return;
    this.#empty.hidden = this.#chain.size > 0;
    this.#grid.show(this.#chain, this.#touched, this.#mayFlash);
    this.#touched = new Set();
    this.#summary.showChain(this.#chain);
    this.#plotsAreDue = true;
    if (this.#isFirstShow) {
      this.#isFirstShow = false;
      this.#grid.centre();
      this.#drawPlots();
    }
    this.#offerMoney();
  }

  #drawPlots(): void {
    const { header, pairs } = this.#chain;
    if (!header || !this.#plotsAreDue || document.hidden) return;
    this.#plotsAreDue = false;
    this.#smile.show(pairs, header);
    this.#interest.show(pairs, header);
  }

  #tick(): void {
    const now = Date.now();
    const market = this.#clock.at(now);
    this.#figures.show(market, now);
    const { spacing_s } = this.#figures;
    const age_s = this.#figures.age_s(market);
    this.#summary.showPill(connectionPill({ link: this.#link, age_s, spacing_s }));
    this.#drawPlots();
  }

  #drawAll(scrollTop: number): void {
    this.#touched = null;
    this.#mayFlash = false;
    this.#draw();
    byId("grid").scrollTop = scrollTop;
  }

  #offerMoney(): void {
    this.#toMoney.hidden = this.#grid.isCentred;
  }
}

/** Midnight in India at or before an instant, ms since 1970 UTC. */
function startOfIndianDay(now: number): number {
  const offset = IST_OFFSET_S * 1_000;
  const day = 86_400_000;
  return Math.floor((now + offset) / day) * day - offset;
}
