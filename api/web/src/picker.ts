// The two pickers: an underlying and one of its expiries, as the gateway lists them.

import { byId } from "./document.ts";
import { date } from "./format.ts";
import type { Expiry, Rest } from "./rest.ts";
import type { Selection } from "./session.ts";

const USUAL_UNDERLYING = "NIFTY"; // the most traded one, where it is listed

export class Picker {
  readonly #underlyings = byId("underlying", HTMLSelectElement);
  readonly #expiries = byId("expiry", HTMLSelectElement);
  readonly #onChoice: (underlying: string, expiry: string) => void;
  #rest: Rest | null = null;

  constructor(onChoice: (underlying: string, expiry: string) => void) {
    this.#onChoice = onChoice;
    this.#underlyings.addEventListener("change", () => void this.#changeUnderlying());
    this.#expiries.addEventListener("change", () => this.#tell());
  }

  /** Reads both lists, keeps what is chosen where it still is listed, else what is wanted. */
  async load(rest: Rest, wanted: Selection): Promise<void> {
    this.#rest = rest;
    const symbols = (await rest.underlyings()).map(({ symbol }) => symbol);
    const preferences = [this.#underlyings.value, wanted.underlying ?? "", USUAL_UNDERLYING];
    fill(this.#underlyings, symbols, preferences);
    await this.#loadExpiries(wanted.expiry);
    this.#tell();
  }

  async #changeUnderlying(): Promise<void> {
    await this.#loadExpiries(null);
    this.#tell();
  }

  async #loadExpiries(wanted: string | null): Promise<void> {
    const underlying = this.#underlyings.value;
    if (!this.#rest || !underlying) return;
    const listed = await this.#rest.expiries(underlying);
    if (underlying !== this.#underlyings.value) return;
    const known = new Map(listed.map((each) => [each.expiry, each]));
    const first = listed.find((each) => each.ts_ingest !== null && !each.is_expired);
    const preferences = [this.#expiries.value, wanted ?? "", first?.expiry ?? ""];
    fill(this.#expiries, [...known.keys()], preferences, (day) => words(known.get(day), day));
  }

  #tell(): void {
    const [underlying, expiry] = [this.#underlyings.value, this.#expiries.value];
    if (underlying && expiry) this.#onChoice(underlying, expiry);
  }
}

function words(expiry: Expiry | undefined, day: string): string {
  if (expiry?.is_expired) return `${date(day)} · expired`;
  return expiry?.ts_ingest === null ? `${date(day)} · no data` : date(day);
}

/** Gives a picker its options, and chooses the first preference that is among them. */
function fill(
  select: HTMLSelectElement,
  values: readonly string[],
  preferences: readonly string[],
  text: (value: string) => string = (value) => value,
): void {
  const chosen = preferences.find((each) => values.includes(each)) ?? values[0] ?? "";
  const [before, after] = [[...select.options].map((option) => option.text), values.map(text)];
  if (before.length !== after.length || after.some((each, at) => each !== before[at])) {
    select.replaceChildren(...values.map((value, at) => new Option(after[at], value)));
  }
  select.value = chosen;
  select.disabled = values.length === 0;
}
