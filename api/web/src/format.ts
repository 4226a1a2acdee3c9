// Numbers and times as a reader of Indian markets expects them. Pure; never touches the document.

export const ABSENT = "–";
export const IST_OFFSET_S = 19_800;

const LAKH = 100_000;
const CRORE = 10_000_000;
const whole = new Intl.NumberFormat("en-IN", { maximumFractionDigits: 0 });
const hundredths = new Intl.NumberFormat("en-IN", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const upToHundredths = new Intl.NumberFormat("en-IN", { maximumFractionDigits: 2 });
const dayMonth = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  timeZone: "UTC",
});
const clockTime = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZone: "Asia/Kolkata",
});

type Nullable = number | null | undefined;

/** A price in rupees: `1,02,345.50`. */
export function price(value: Nullable): string {
  return value == null ? ABSENT : hundredths.format(value);
}

/** A strike: `24,500`, with paise only where it has some. */
export function strike(value: Nullable): string {
  return value == null ? ABSENT : upToHundredths.format(value);
}

/** A quantity: grouped below a lakh, then `1.37L`, then `2.10Cr`. */
export function quantity(value: Nullable): string {
  if (value == null) return ABSENT;
  const size = Math.abs(value);
  if (size < LAKH) return whole.format(value);
  // 99.995 L would print as 100.00L: from there on it is a crore.
  if (size < CRORE - LAKH / 200) return `${(value / LAKH).toFixed(2)}L`;
  return `${(value / CRORE).toFixed(2)}Cr`;
}

/** A decimal volatility as percent without its sign: 0.1117 is `11.17`. */
export function percent(value: Nullable, digits = 2): string {
  return value == null ? ABSENT : (value * 100).toFixed(digits);
}

/** A plain number with a fixed number of decimals; a rounded zero loses its minus sign. */
export function fixed(value: Nullable, digits: number): string {
  if (value == null) return ABSENT;
  const text = value.toFixed(digits);
  return text.startsWith("-") && Number(text) === 0 ? text.slice(1) : text;
}

/** A change with its sign: `+0.13 %`; a plain `0.00 %` where nothing is left after rounding. */
export function signedPercent(ratio: Nullable): string {
  if (ratio == null) return ABSENT;
  const text = fixed(ratio * 100, 2);
  return `${Number(text) > 0 ? "+" : ""}${text} %`;
}

/** How long ago: `0.4 s`, `12 s`, `3 min`, `2 h`, `4 d`. */
export function age(seconds: Nullable): string {
  if (seconds == null) return ABSENT;
  const past = Math.max(0, seconds);
  if (past < 9.95) return `${past.toFixed(1)} s`;
  if (past < 120) return `${Math.round(past)} s`;
  if (past < 7_200) return `${Math.round(past / 60)} min`;
  if (past < 172_800) return `${Math.round(past / 3_600)} h`;
  return `${Math.round(past / 86_400)} d`;
}

/** A delay: `8 ms`, `1.2 s`. */
export function delay(milliseconds: Nullable): string {
  if (milliseconds == null) return ABSENT;
  if (milliseconds < 1_000) return `${Math.round(milliseconds)} ms`;
  return age(milliseconds / 1_000);
}

/** An ISO date as `27 Jan 2026`. */
export function date(iso: string): string {
  return dayMonth.format(new Date(`${iso}T00:00:00Z`));
}

/** An instant, ms since 1970 UTC, as the clock on an Indian wall: `15:03:07`. */
export function time(milliseconds: number): string {
  return clockTime.format(new Date(milliseconds));
}

/** Time to expiry from years of 365 days: `4.2 d`, or `5 h 10 min` on the last day. */
export function untilExpiry(years: Nullable): string {
  if (years == null) return ABSENT;
  if (years <= 0) return "expired";
  const minutes = years * 365 * 24 * 60;
  if (minutes >= 2 * 24 * 60) return `${(minutes / 1_440).toFixed(1)} d`;
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${Math.floor(minutes % 60)} min`;
  return `${Math.floor(minutes)} min`;
}
