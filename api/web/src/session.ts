// The token of this tab: taken from the address once, kept until the tab closes, never shown.

const KEY = "stockify.token";

/** The token this tab has: one in the URL fragment wins, and leaves the address bar at once. */
export function takeToken(): string | null {
  const fragment = new URLSearchParams(location.hash.replace(/^#/, ""));
  const token = fragment.get("token")?.trim();
  if (fragment.has("token")) {
    fragment.delete("token");
    const rest = fragment.toString();
    const address = location.pathname + location.search + (rest ? `#${rest}` : "");
    history.replaceState(history.state, "", address);
  }
  if (token) keepToken(token);
  return token || sessionStorage.getItem(KEY);
}

export function keepToken(token: string): void {
  sessionStorage.setItem(KEY, token);
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}

export interface Selection {
  readonly underlying: string | null;
  readonly expiry: string | null;
}

/** What the address asks to see, so that a view can be bookmarked. */
export function selectionFromAddress(): Selection {
  const query = new URLSearchParams(location.search);
  return { underlying: query.get("underlying"), expiry: query.get("expiry") };
}

export function putSelectionInAddress(underlying: string, expiry: string): void {
  const query = new URLSearchParams({ underlying, expiry });
  history.replaceState(history.state, "", `${location.pathname}?${query}`);
}
