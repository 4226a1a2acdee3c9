import assert from "node:assert/strict";
import { test } from "node:test";

import { Spacing, connectionPill } from "../../../api/web/src/connection.ts";

test("data is stale after five usual spacings, not before", () => {
  const at = (age_s: number) => connectionPill({ link: "open", age_s, spacing_s: 4 }).state;
  assert.equal(at(19.9), "live");
  assert.equal(at(20.1), "stale");
});

test("a fast feed is not called stale before the provider's own limit", () => {
  assert.equal(connectionPill({ link: "open", age_s: 14, spacing_s: 0.25 }).state, "live");
});

test("an open link without data is not yet live", () => {
  const pill = connectionPill({ link: "open", age_s: null, spacing_s: null });
  assert.deepEqual(pill, { state: "connecting", text: "waiting for data" });
});

test("a lost link says how old what is shown has become", () => {
  const pill = connectionPill({ link: "reconnecting", age_s: 12, spacing_s: 3 });
  assert.deepEqual(pill, { state: "reconnecting", text: "reconnecting · 12 s old" });
});

test("a refused token is signed out, whatever the age", () => {
  assert.equal(connectionPill({ link: "refused", age_s: 1, spacing_s: 3 }).state, "signed out");
});

test("the usual spacing is the middle one, so that one break does not change it", () => {
  const spacing = new Spacing();
  assert.equal(spacing.seconds, null);
  for (const at of [0, 3_000, 6_000, 66_000, 69_000, 72_000]) spacing.note(at);
  assert.equal(spacing.seconds, 3);
});
