// The reference of the live feed: /asyncapi.json as tables. Writes text nodes only.

interface Schema {
  $ref?: string;
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | false;
  default?: unknown;
  examples?: unknown[];
  anyOf?: Schema[];
}

interface Message {
  name: string;
  summary?: string;
  description?: string;
  payload: Schema;
  examples?: { name?: string; payload: unknown }[];
}

interface Operation {
  action: string;
  summary?: string;
  messages: { $ref: string }[];
}

interface Described {
  info: { title: string; version: string; description: string };
  operations: Record<string, Operation>;
  channels: Record<string, { address: string; description: string }>;
  components: { messages: Record<string, Message>; schemas: Record<string, Schema> };
  "x-close-codes": Record<string, string>;
}

function element(name: string, value = "", ...children: Node[]): HTMLElement {
  const made = document.createElement(name);
  if (value) made.textContent = value;
  made.append(...children);
  return made;
}

function text(value: string): Text {
  return document.createTextNode(value);
}

/** Text in which what stands between backticks is code. */
function prose(value: string): HTMLElement {
  const parts = value
    .split("`")
    .map((part, index) => (index % 2 ? element("code", part) : text(part)));
  return element("p", "", ...parts);
}

function typeOf(schema: Schema): string {
  if (schema.$ref) return schema.$ref.split("/").at(-1) ?? "";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  const type = [schema.type ?? "any"].flat().join(" | ");
  const held = schema.items ?? schema.additionalProperties;
  return held ? `${type} of ${typeOf(held)}` : type;
}

function row(kind: "td" | "th", ...cells: Node[]): HTMLElement {
  return element("tr", "", ...cells.map((cell) => element(kind, "", cell)));
}

function usual(schema: Schema): string {
  return schema.default === undefined ? "optional" : JSON.stringify(schema.default);
}

/** The schema that is meant, and what its fields follow in a path: `[]` of a list, `.*` of a map. */
function within(described: Described, schema: Schema): { inner: Schema; step: string } {
  if (schema.$ref) {
    const inner = described.components.schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {};
    return { inner, step: "" };
  }
  const held = schema.items ?? schema.additionalProperties;
  if (!held) return { inner: schema, step: "" };
  const { inner, step } = within(described, held);
  return { inner, step: (schema.items ? "[]" : ".*") + step };
}

/** Examples as one text of code, or nothing. */
function quoted(examples: unknown[]): string[] {
  const each = examples.flat().map((value) => `\`${value}\``);
  return each.length ? [each.join(" ")] : [];
}

function rowsOf(described: Described, schema: Schema, before = ""): HTMLElement[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, each]) => {
    const isRequired = schema.required?.includes(name);
    const shown = row(
      "td",
      element("code", before + name),
      element("code", typeOf(each)),
      text(isRequired ? "" : usual(each)),
      prose([each.description ?? "", ...quoted(each.examples ?? [])].join(": ")),
    );
    const { inner, step } = within(described, each);
    return [shown, ...rowsOf(described, inner, `${before}${name}${step}.`)];
  });
}

function fields(described: Described, schema: Schema): HTMLElement {
  const head = row("th", ...["field", "type", "default", ""].map(text));
  return element("table", "", head, ...rowsOf(described, schema));
}

function section(described: Described, name: string, message: Message): HTMLElement {
  const payload = message.payload.$ref
    ? described.components.schemas[message.payload.$ref.split("/").at(-1) ?? ""]
    : message.payload;
  const made = element("section", "", element("h3", message.name));
  made.id = name;
  made.append(prose(message.summary ?? ""));
  if (message.description) made.append(prose(message.description));
  made.append(fields(described, payload ?? {}));
  for (const example of message.examples ?? []) {
    const shown = element("pre", JSON.stringify(example.payload, null, 2));
    shown.tabIndex = 0; // a long one scrolls, also by keys
    made.append(shown);
  }
  return made;
}

function contents(names: string[]): HTMLElement {
  const links = names.map((name) => {
    const link = document.createElement("a");
    link.href = `#${name}`;
    link.textContent = name;
    return link;
  });
  const made = element("p", "", ...links);
  made.className = "contents";
  return made;
}

function show(described: Described, root: HTMLElement): void {
  root.append(element("h1", `${described.info.title}, live feed`));
  root.append(prose(described.info.description));
  for (const channel of Object.values(described.channels)) {
    root.append(prose(`\`${channel.address}\` ${channel.description}`));
  }
  const asked = Object.values(described.operations)
    .filter((operation) => operation.action === "receive")
    .flatMap((operation) => operation.messages)
    .map((reference) => reference.$ref.split("/").at(-1) ?? "");
  const named = Object.entries(described.components.messages);
  for (const [title, isAsked] of [
    ["The client says", true],
    ["The gateway says", false],
  ] as const) {
    const own = named.filter(([name]) => asked.includes(name) === isAsked);
    root.append(element("h2", title), contents(own.map(([name]) => name)));
    root.append(...own.map(([name, message]) => section(described, name, message)));
  }
  const codes = Object.entries(described["x-close-codes"]).map(([code, why]) =>
    row("td", element("code", code), prose(why)),
  );
  const table = element("table", "", ...codes);
  table.className = "codes";
  root.append(element("h2", "Close codes"), table);
  // The browser looked for the place in the address before there was any.
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const root = document.querySelector<HTMLElement>("#docs");
if (root) {
  const answer = await fetch("/asyncapi.json");
  show((await answer.json()) as Described, root);
}

export {};
