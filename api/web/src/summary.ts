// The words and numbers around the grid: the line at the top, the call–put gap, the pipeline.

import type { Chain, Header, Smile } from "./chain.ts";
import { type Pill } from "./connection.ts";
import { byId, say } from "./document.ts";
import * as format from "./format.ts";
import { callPutGap, type Gap } from "./gap.ts";

const STRIKES_EACH_SIDE = 10;
const SOURCES: Readonly<Record<string, string>> = {
  parity: "parity",
  single_strike: "one strike",
  spot_carry: "spot · e^rT",
};

export class Summary {
  readonly #spot = byId("spot");
  readonly #change = byId("change");
  readonly #forward = byId("forward");
  readonly #forwardSource = byId("forward-source");
  readonly #atmIv = byId("atm-iv");
  readonly #pcr = byId("pcr");
  readonly #maxPain = byId("max-pain");
  readonly #skew = byId("skew");
  readonly #gammaExposure = byId("gamma-exposure");
  readonly #expectedMove = byId("expected-move");
  readonly #smileStatus = byId("smile-status");
  readonly #smileError = byId("smile-error");
  readonly #toExpiry = byId("to-expiry");
  readonly #gapNote = byId("gap-note");
  readonly #chainNote = byId("chain-note");
  readonly #provider = byId("provider");
  readonly #pill = byId("pill");
  readonly #pillText = byId("pill-text");
  readonly #announcement = byId("announcement");

  /** What is said of a whole chain. */
  showChain(chain: Chain): void {
    const { header } = chain;
    if (!header) return;
    const { aggregates } = header;
    say(this.#forward, format.price(header.forward));
    say(this.#forwardSource, forwardSource(header));
    say(this.#atmIv, withUnit(format.percent(aggregates.atm_iv), " %"));
    say(this.#pcr, format.fixed(aggregates.put_call_ratio_open_interest, 2));
    say(this.#maxPain, format.strike(aggregates.max_pain));
    say(this.#skew, withUnit(volPoints(aggregates.skew_25_delta), " pts"));
    say(this.#gammaExposure, format.quantity(aggregates.gamma_exposure));
    say(this.#expectedMove, withSign(format.fixed(aggregates.expected_move, 0)));
    say(this.#toExpiry, format.untilExpiry(header.years));
    const lot = header.lot === null ? "" : ` · lot ${header.lot}`;
    say(this.#chainNote, `${chain.pairs.length} strikes${lot}`);
    say(this.#provider, `from ${header.provider}`);
    this.#showSmile(header.smile);
    this.#showGaps(chain);
  }

  /** The price now, and how far it is from the first of the day. */
  showSpot(spot: number | null, firstOfDay: number | null): void {
    say(this.#spot, format.price(spot));
    const ratio = spot === null || !firstOfDay ? null : spot / firstOfDay - 1;
    const text = ratio === null ? "" : format.signedPercent(ratio);
    say(this.#change, text);
    const direction = text.startsWith("+") ? "up" : text.startsWith("-") ? "down" : "";
    this.#change.dataset["direction"] = direction;
    this.#change.title = firstOfDay ? `since the day's first price, ${format.price(firstOfDay)}` : "";
  }

  showPill({ state, text }: Pill): void {
    say(this.#pillText, text);
    if (this.#pill.dataset["state"] !== state) say(this.#announcement, `connection: ${state}`);
    this.#pill.dataset["state"] = state;
  }

  /** Empties what belongs to the chain that was shown. */
  clear(): void {
    const numbers = [
      ...[this.#forward, this.#atmIv, this.#pcr, this.#maxPain, this.#toExpiry],
      ...[this.#skew, this.#gammaExposure, this.#expectedMove],
    ];
    for (const element of numbers) say(element, format.ABSENT);
    const words = [this.#forwardSource, this.#chainNote, this.#gapNote, this.#provider];
    for (const element of words) say(element, "");
    this.#showSmile(null);
    this.#showGap("ours", { strikes: 0, median: null, maximum: null });
    this.#showGap("provider", { strikes: 0, median: null, maximum: null });
  }

  #showSmile(smile: Smile | null | undefined): void {
    say(this.#smileStatus, smile?.status ?? format.ABSENT);
    this.#smileStatus.dataset["status"] = smile?.status ?? "";
    const { error, points } = smile ?? {};
    say(this.#smileError, smile ? `${withSign(format.fixed(error, 2))} pts, ${points} legs` : "");
  }

  #showGaps(chain: Chain): void {
    const pairs = chain.around(STRIKES_EACH_SIDE);
    const ours = callPutGap(pairs, "iv");
    this.#showGap("ours", ours);
    this.#showGap("provider", callPutGap(pairs, "iv_provider"));
    say(this.#gapNote, `${ours.strikes} strikes round the money`);
  }

  #showGap(whose: string, { median, maximum }: Gap): void {
    say(byId(`gap-${whose}-median`), format.fixed(median, 2));
    say(byId(`gap-${whose}-maximum`), format.fixed(maximum, 2));
  }
}

function forwardSource({ forward, forward_source, forward_pairs }: Header): string {
  if (forward === null) return "";
  const source = SOURCES[forward_source] ?? forward_source;
  return forward_source === "parity" ? `${source}, ${forward_pairs} pairs` : source;
}

function volPoints(volatility: number | null | undefined): string {
  return format.fixed(volatility == null ? null : volatility * 100, 2);
}

function withSign(text: string): string {
  return text === format.ABSENT ? text : `± ${text}`;
}

function withUnit(text: string, unit: string): string {
  return text === format.ABSENT ? text : text + unit;
}
