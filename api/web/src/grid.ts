// The option chain as a grid of keyed cells: call side, strike, put side. A cell of the document
// is written only when its text, bar or flash changes, so a busy chain of 500 strikes stays smooth.

import type { Chain, Leg, Pair, Side } from "./chain.ts";
import { CELL_PADDING_PX, type Column, STRIKE_DIGITS, digitsOf, fitting } from "./columns.ts";
import { make } from "./document.ts";
import { strike as strikeText } from "./format.ts";

const LIT_MS = 900;
const FADE_STEP_MS = 150;

interface Cell {
  readonly element: HTMLElement;
  readonly column: Column;
  readonly side: Side;
  value: number | null;
  text: string;
  bar: number;
  /** Until when it is lit, as performance.now() counts; 0 where it is not. */
  litUntil: number;
}

interface Row {
  readonly element: HTMLElement;
  readonly cells: readonly Cell[];
  money: string;
}

export class ChainGrid {
  readonly #scroller: HTMLElement;
  readonly #head: HTMLElement;
  readonly #body: HTMLElement;
  readonly #rows = new Map<number, Row>();
  #wanted: readonly Column[] = [];
  #columns: readonly Column[] = [];
  readonly #widest = new Map<string, number>();
  #hasOutgrown = false;
  readonly #lit = new Set<Cell>();
  #fadeTimer: ReturnType<typeof setTimeout> | undefined;
  #order: readonly number[] = [];
  #largestBar = 0;
  #atTheMoney: number | null = null;

  /** `scroller` becomes the grid; it is the element that scrolls. */
  constructor(scroller: HTMLElement) {
    this.#scroller = scroller;
    this.#head = make("div", "grid-head", "rowgroup");
    this.#body = make("div", "grid-body", "rowgroup");
    scroller.replaceChildren(this.#head, this.#body);
  }

  /** Chooses the columns, named for the call side from the outside in; empties the grid. */
  choose(columns: readonly Column[]): void {
    this.#wanted = columns;
    this.#columns = [];
    this.fit();
  }

  /** Gives columns the width their numbers need, and drops those for which there is no room. */
  fit(): boolean {
    const digit_px = digitWidth(this.#scroller);
    const cell_px = (digits: number): number => Math.ceil(digits * digit_px + CELL_PADDING_PX);
    const column_px = (column: Column): number =>
      cell_px(Math.max(column.digits, this.#widest.get(column.id) ?? 0));
    const strike_px = cell_px(STRIKE_DIGITS);
    const width_px = this.#scroller.clientWidth;
    const columns = fitting(this.#wanted, width_px, strike_px, column_px);
    const sides = columns.map(column_px);
    const shares = [...sides, strike_px, ...sides.toReversed()];
    const template = shares.map((each) => `minmax(0, ${each}fr)`).join(" ");
    this.#scroller.style.setProperty("--grid-columns", template);
    if (sameColumns(columns, this.#columns)) return false;
    this.#columns = columns;
    this.#head.replaceChildren(this.#sideRow(), this.#headRow());
    this.#empty();
    return true;
  }

  /** Forgets the chain, as before another one. */
  clear(): void {
    this.#widest.clear();
    this.#empty();
  }

  /** Shows a chain; only these strikes have changed (null: any may have), and those may flash. */
  show(chain: Chain, touched: ReadonlySet<number> | null, mayFlash: boolean): void {
    this.#hasOutgrown = false;
    this.#showRows(chain, touched, mayFlash);
    if (this.#hasOutgrown && this.fit()) this.#showRows(chain, null, false);
  }

  #showRows(chain: Chain, touched: ReadonlySet<number> | null, mayFlash: boolean): void {
    this.#arrange(chain.pairs);
    const grown = this.#measureBars(chain.pairs);
    for (const pair of chain.pairs) {
      const row = this.#rows.get(pair.strike) as Row;
      if (grown || touched === null || touched.has(pair.strike)) {
        this.#write(row, pair, mayFlash);
      }
    }
    this.#markMoney(chain);
  }

  /** Brings the strike at the money to the middle. */
  centre(): void {
    const row = this.#atTheMoney === null ? undefined : this.#rows.get(this.#atTheMoney);
    if (!row) return;
    const free = this.#scroller.clientHeight - this.#head.offsetHeight - row.element.offsetHeight;
    const top = row.element.offsetTop - this.#body.offsetTop - free / 2;
    this.#scroller.scrollTop = Math.max(0, top);
  }

  /** Whether the strike at the money is in sight, or there is none. */
  get isCentred(): boolean {
    const row = this.#atTheMoney === null ? undefined : this.#rows.get(this.#atTheMoney);
    if (!row) return true;
    const top = row.element.offsetTop - this.#body.offsetTop - this.#scroller.scrollTop;
    const height = this.#scroller.clientHeight - this.#head.offsetHeight;
    return top >= 0 && top + row.element.offsetHeight <= height;
  }

  #empty(): void {
    this.#rows.clear();
    this.#lit.clear();
    this.#order = [];
    this.#body.replaceChildren();
    this.#largestBar = 0;
    this.#atTheMoney = null;
  }

  #sideRow(): HTMLElement {
    const row = make("div", "grid-row grid-sides");
    row.setAttribute("aria-hidden", "true");
    const [calls, middle, puts] = [make("span", "c"), make("span", "k"), make("span", "p")];
    [calls.textContent, puts.textContent] = ["Calls", "Puts"];
    const span = `span ${this.#columns.length}`;
    [calls.style.gridColumn, puts.style.gridColumn] = [span, span];
    row.append(calls, middle, puts);
    return row;
  }

  #headRow(): HTMLElement {
    const row = make("div", "grid-row", "row");
    for (const [side, column] of this.#sides()) {
      const cell = make("span", side ? side[0] ?? "" : "k", "columnheader");
      cell.textContent = column?.head ?? "Strike";
      if (column && side) {
        cell.title = column.title;
        cell.setAttribute("aria-label", `${side} ${column.title}`);
      }
      row.append(cell);
    }
    return row;
  }

  /** Columns from left to right; the strike between the sides is `[null, null]`. */
  #sides(): readonly (readonly [Side, Column] | readonly [null, null])[] {
    return [
      ...this.#columns.map((column) => ["call", column] as const),
      [null, null],
      ...this.#columns.toReversed().map((column) => ["put", column] as const),
    ];
  }

  #arrange(pairs: readonly Pair[]): void {
    const strikes = pairs.map((pair) => pair.strike);
    const order = this.#order;
    if (strikes.length === order.length && strikes.every((each, at) => each === order[at])) return;
    this.#order = strikes;
    const wanted = new Set(strikes);
    for (const strike of this.#rows.keys()) if (!wanted.has(strike)) this.#rows.delete(strike);
    this.#body.replaceChildren(...strikes.map((each) => this.#rowOf(each).element));
    this.#scroller.setAttribute("aria-rowcount", String(strikes.length + 1));
  }

  #rowOf(strike: number): Row {
    const known = this.#rows.get(strike);
    if (known) return known;
    const element = make("div", "grid-row", "row");
    element.dataset["strike"] = String(strike);
    const cells: Cell[] = [];
    for (const [side, column] of this.#sides()) {
      const span = make("span", side ? (side[0] ?? "") : "k", side ? "cell" : "rowheader");
      element.append(span);
      if (!side) {
        span.textContent = strikeText(strike);
        continue;
      }
      span.dataset["field"] = column.id;
      cells.push({ element: span, column, side, value: null, text: "", bar: 0, litUntil: 0 });
    }
    const row = { element, cells, money: "" };
    this.#rows.set(strike, row);
    return row;
  }

  #measureBars(pairs: readonly Pair[]): boolean {
    const barred = this.#columns.find((column) => column.hasBar);
    if (!barred) return false;
    let largest = 0;
    for (const { call, put } of pairs) {
      for (const leg of [call, put]) if (leg) largest = Math.max(largest, barred.value(leg) ?? 0);
    }
    if (largest === this.#largestBar) return false;
    this.#largestBar = largest;
    return true;
  }

  #write(row: Row, pair: Pair, mayFlash: boolean): void {
    for (const cell of row.cells) {
      const leg: Leg | null = pair[cell.side];
      const value = leg ? cell.column.value(leg) : null;
      const before = cell.value;
      if (value !== before || cell.text === "") this.#writeText(cell, value, leg !== null);
      if (cell.column.hasBar) this.#writeBar(cell, value);
      if (mayFlash && cell.column.flashes && value !== null && before !== null && value !== before) {
        this.#light(cell, value > before ? "up" : "down");
      }
    }
  }

  #writeText(cell: Cell, value: number | null, isListed: boolean): void {
    cell.value = value;
    const text = isListed ? cell.column.text(value) : " ";
    if (text === cell.text) return;
    cell.text = text;
    cell.element.textContent = text;
    const digits = digitsOf(text);
    if (digits > Math.max(cell.column.digits, this.#widest.get(cell.column.id) ?? 0)) {
      this.#widest.set(cell.column.id, digits);
      this.#hasOutgrown = true;
    }
  }

  #writeBar(cell: Cell, value: number | null): void {
    const bar = this.#largestBar > 0 ? Math.round(((value ?? 0) / this.#largestBar) * 100) : 0;
    if (bar === cell.bar) return;
    cell.bar = bar;
    cell.element.style.backgroundSize = `${bar}% 100%`;
  }

  /** A step of light and a step of dusk: an animation would repaint every cell at every frame. */
  #light(cell: Cell, direction: "up" | "down"): void {
    cell.litUntil = performance.now() + LIT_MS;
    cell.element.className = `${cell.side[0]} ${direction}`;
    this.#lit.add(cell);
    this.#fadeTimer ??= setTimeout(() => this.#fade(), FADE_STEP_MS);
  }

  #fade(): void {
    const now = performance.now();
    for (const cell of this.#lit) {
      const left_ms = cell.litUntil - now;
      if (left_ms <= FADE_STEP_MS / 2) {
        cell.element.className = cell.side[0] ?? "";
        this.#lit.delete(cell);
      } else if (left_ms <= LIT_MS / 2) cell.element.classList.add("dusk");
    }
    const again = this.#lit.size > 0;
    this.#fadeTimer = again ? setTimeout(() => this.#fade(), FADE_STEP_MS) : undefined;
  }

  #markMoney(chain: Chain): void {
    const atm = chain.atTheMoney();
    const level = chain.header?.forward ?? chain.header?.spot ?? atm;
    this.#atTheMoney = atm;
    for (const [strike, row] of this.#rows) {
      const side = level === null ? "" : strike < level ? "call-itm" : "put-itm";
      const money = strike === atm ? `${side} atm` : side;
      if (money === row.money) continue;
      row.money = money;
      row.element.className = `grid-row ${money}`;
      if (strike === atm) row.element.setAttribute("aria-current", "true");
      else row.element.removeAttribute("aria-current");
    }
  }
}

function sameColumns(one: readonly Column[], other: readonly Column[]): boolean {
  return one.length === other.length && one.every((column, at) => column === other[at]);
}

/** How wide a digit is in this element's font. */
function digitWidth(element: HTMLElement): number {
  const context = document.createElement("canvas").getContext("2d");
  if (!context) return 8;
  const { fontSize, fontFamily } = getComputedStyle(element);
  context.font = `${fontSize} ${fontFamily}`;
  return context.measureText("0000000000").width / 10;
}
