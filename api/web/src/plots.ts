// The smile and the open-interest profile, drawn by uPlot. Takes pairs and numbers, keeps none.

import uPlot from "uplot";

import type { Header, Pair } from "./chain.ts";
import { quantity, strike as strikeText } from "./format.ts";
import type { VolatilityField } from "./gap.ts";

export type SmileView = "ours" | "provider" | "both";

const COLOURS = {
  call: "#35d39a",
  put: "#ff7d74",
  callProvider: "#8fb7ff",
  putProvider: "#f2c14e",
  fit: "#e3ebf5",
  text: "#9fb0c3",
  lines: "#1f2c3a",
  mark: "#6b7f95",
};
const LEGEND_LINE = 22; // as styles.css says
const ONE_LINE_FROM_PX = 255;
const FONT = "11px system-ui, sans-serif";
const SIGMAS = 4; // beyond four standard deviations of the forward a leg has no volatility to show
const LEAST_STRIKES_EACH_SIDE = 12;

/** Strikes worth plotting: within a few standard deviations of the forward, and never too few. */
export function plotted(pairs: readonly Pair[], header: Header): readonly Pair[] {
  const centre = header.forward ?? header.spot;
  if (centre === null) return pairs;
  const volatility = header.aggregates.atm_iv ?? 0.15;
  const reach = SIGMAS * volatility * Math.sqrt(Math.max(header.years, 0));
  const middle = pairs.findIndex((pair) => pair.strike >= centre);
  return pairs.filter(
    (pair, index) =>
      Math.abs(Math.log(pair.strike / centre)) <= reach ||
      Math.abs(index - middle) <= LEAST_STRIKES_EACH_SIDE,
  );
}

abstract class Plot {
  readonly #host: HTMLElement;
  #plot: uPlot | null = null;
  protected mark: number | null = null;
  protected hasLongLegend = false;

  constructor(host: HTMLElement) {
    this.#host = host;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(host);
  }

  /** Shows nothing until there is something again. */
  clear(): void {
    this.#plot?.destroy();
    this.#plot = null;
  }

  protected abstract options(): Omit<uPlot.Options, "width" | "height">;

  protected draw(data: uPlot.AlignedData): void {
    if (this.#plot) {
      this.#plot.setData(data);
      return;
    }
    const { width, height } = this.#size();
    const hooks = { draw: [(plot: uPlot) => this.#drawMark(plot)] };
    this.#plot = new uPlot({ ...this.options(), hooks, width, height }, data, this.#host);
  }

  #size(): { width: number; height: number } {
    const { clientWidth: width, clientHeight } = this.#host;
    const lines = this.hasLongLegend || width < ONE_LINE_FROM_PX ? 2 : 1;
    return { width, height: Math.max(80, clientHeight - LEGEND_LINE * lines - 2) };
  }

  #drawMark(plot: uPlot): void {
    if (this.mark === null) return;
    const x = Math.round(plot.valToPos(this.mark, "x", true)) + 0.5;
    const { left, top, width, height } = plot.bbox;
    if (x < left || x > left + width) return;
    plot.ctx.save();
    plot.ctx.strokeStyle = COLOURS.mark;
    plot.ctx.setLineDash([3, 4]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  }
}

function axes(values: (value: number) => string): uPlot.Axis[] {
  const common = {
    stroke: COLOURS.text,
    font: FONT,
    grid: { stroke: COLOURS.lines, width: 1 },
    ticks: { stroke: COLOURS.lines, width: 1, size: 4 },
  };
  return [
    { ...common, space: 64, size: 26, values: (_, splits) => splits.map((each) => strikeText(each)) },
    { ...common, space: 22, size: 52, values: (_, splits) => splits.map(values) },
  ];
}

const noTime = { x: { time: false } };
const cursor: uPlot.Cursor = { drag: { x: false, y: false }, points: { size: 6 } };

/**
 * IV by strike: ours with the curve fitted through it, the provider's, or both. Only volatilities
 * whose status is ok.
 */
export class SmilePlot extends Plot {
  #view: SmileView = "ours";
  protected override hasLongLegend = true; // the curve's name is one too many for a line

  choose(view: SmileView): void {
    this.#view = view;
    this.hasLongLegend = view !== "provider";
    this.clear();
  }

  show(pairs: readonly Pair[], header: Header): void {
    const shown = plotted(pairs, header);
    this.mark = header.forward;
    const sides = ["call", "put"] as const;
    const lines = this.#fields().flatMap((field) =>
      sides.map((side) => shown.map((pair) => volatility(pair, side, field))),
    );
    const fit = this.#view === "provider" ? [] : [shown.map(fitted)];
    this.draw([shown.map((pair) => pair.strike), ...lines, ...fit]);
  }

  protected override options(): Omit<uPlot.Options, "width" | "height"> {
    const percent = (_: uPlot, value: number | null): string =>
      value == null ? "–" : `${value.toFixed(2)} %`;
    const colours = {
      iv: [COLOURS.call, COLOURS.put],
      iv_provider: [COLOURS.callProvider, COLOURS.putProvider],
    } as const;
    const series: uPlot.Series[] = this.#fields().flatMap((field) => {
      const whose = field === "iv" ? "" : "prov. ";
      const dash = field === "iv" ? [] : [5, 3];
      return (["call", "put"] as const).map((side, index) => ({
        label: `${whose}${side}`,
        stroke: colours[field][index] as string,
        width: side === "call" ? 3 : 1.4, // where they agree the put lies on the call, both in sight
        dash,
        spanGaps: true,
        points: { show: false },
        value: percent,
      }));
    });
    const fit: uPlot.Series = {
      label: "fit",
      stroke: COLOURS.fit,
      width: 1,
      spanGaps: true,
      points: { show: false },
      value: percent,
    };
    if (this.#view !== "provider") series.push(fit);
    const x = { label: "strike", value: (_: uPlot, at: number | null) => strikeText(at) };
    return { series: [x, ...series], axes: axes((value) => `${value}`), scales: noTime, cursor };
  }

  #fields(): readonly VolatilityField[] {
    if (this.#view === "both") return ["iv", "iv_provider"];
    return this.#view === "ours" ? ["iv"] : ["iv_provider"];
  }
}

function volatility(pair: Pair, side: "call" | "put", field: VolatilityField): number | null {
  const leg = pair[side];
  if (!leg || (field === "iv" && leg.iv_status !== 0)) return null;
  const value = leg[field];
  return value == null ? null : value * 100;
}

function fitted(pair: Pair): number | null {
  const value = (pair.call ?? pair.put)?.iv_fit;
  return value == null ? null : value * 100;
}

/** Open interest by strike: calls upwards, puts downwards. */
export class InterestPlot extends Plot {
  show(pairs: readonly Pair[], header: Header): void {
    const shown = plotted(pairs, header);
    this.mark = header.forward;
    this.draw([
      shown.map((pair) => pair.strike),
      shown.map((pair) => pair.call?.open_interest ?? null),
      shown.map((pair) => negative(pair.put?.open_interest)),
    ]);
  }

  protected override options(): Omit<uPlot.Options, "width" | "height"> {
    const bars = uPlot.paths.bars?.({ size: [0.75, 28] });
    const side = (label: string, colour: string): uPlot.Series => ({
      label,
      stroke: colour,
      fill: `${colour}88`,
      width: 1,
      points: { show: false },
      value: (_: uPlot, value: number | null) => quantity(value === null ? null : Math.abs(value)),
      ...(bars ? { paths: bars } : {}),
    });
    const x = { label: "strike", value: (_: uPlot, at: number | null) => strikeText(at) };
    return {
      series: [x, side("call", COLOURS.call), side("put", COLOURS.put)],
      axes: axes((value) => (value === 0 ? "0" : quantity(Math.abs(value)))),
      scales: noTime,
      cursor,
    };
  }
}

function negative(value: number | null | undefined): number | null {
  return value == null ? null : -value;
}
