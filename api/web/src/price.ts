// The underlying's price as one-minute candles, drawn by Lightweight Charts. Its own attribution
// mark brings an inline style that the page's policy forbids, so the page carries the notice itself.

import {
  CandlestickSeries,
  type CandlestickData,
  ColorType,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
  createChart,
} from "lightweight-charts";

import { type Candle, Candles, type PricePoint } from "./candles.ts";
import { IST_OFFSET_S, price } from "./format.ts";

const UP = "#2bb886";
const DOWN = "#f0655c";

export class PriceChart {
  readonly #chart: IChartApi;
  readonly #series: ISeriesApi<"Candlestick">;
  readonly #candles = new Candles(60);

  constructor(host: HTMLElement) {
    const lines = { color: "#18232f" };
    this.#chart = createChart(host, {
      autoSize: true,
      layout: {
        attributionLogo: false,
        background: { type: ColorType.Solid, color: "transparent" },
        textColor: "#9fb0c3",
        fontFamily: "system-ui, sans-serif",
        fontSize: 11,
      },
      grid: { vertLines: lines, horzLines: lines },
      rightPriceScale: { borderVisible: false, entireTextOnly: true },
      timeScale: { borderVisible: false, timeVisible: true, secondsVisible: false, rightOffset: 3 },
      localization: { priceFormatter: price, locale: "en-IN" },
    });
    this.#series = this.#chart.addSeries(CandlestickSeries, {
      upColor: UP,
      downColor: DOWN,
      borderVisible: false,
      wickUpColor: UP,
      wickDownColor: DOWN,
    });
  }

  clear(): void {
    this.#candles.clear();
    this.#series.setData([]);
  }

  /** Takes a stretch of the past, in any order, beside what is already there. */
  load(points: readonly PricePoint[]): void {
    this.#candles.load(points);
    this.#drawAll();
    this.#chart.timeScale().scrollToRealTime();
  }

  add(point: PricePoint): void {
    const { candle, isNewest } = this.#candles.add(point);
    if (isNewest) this.#series.update(bar(candle));
    else this.#drawAll();
  }

  #drawAll(): void {
    this.#series.setData(this.#candles.all.map(bar));
  }
}

/** The library knows no time zones: shown in UTC, a time moved by the offset reads as IST. */
function bar({ time, open, high, low, close }: Candle): CandlestickData<UTCTimestamp> {
  return { time: (time + IST_OFFSET_S) as UTCTimestamp, open, high, low, close };
}
