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

function element(name: string, text = "", ...children: Node[]): HTMLElement {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** Text in which what stands between backticks is code. */
function prose(text: string): HTMLElement {
  const parts = text
    .split("`")
    .map((part, index) => (index % 2 ? element("code", part) : document.createTextNode(part)));
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

function row(...cells: Node[]): HTMLElement {
  return element("tr", "", ...cells.map((cell) => element("td", "", cell)));
}

function usual(schema: Schema): string {
  return schema.default === undefined ? "optional" : `or ${JSON.stringify(schema.default)}`;
}

function fields(schema: Schema): HTMLElement {
  const rows = Object.entries(schema.properties ?? {}).map(([name, each]) => {
    const isRequired = schema.required?.includes(name);
    return row(
      element("code", name),
      element("code", typeOf(each)),
      document.createTextNode(isRequired ? "" : usual(each)),
      prose(each.description ?? ""),
    );
  });
  return element("table", "", ...rows);
}

function section(described: Described, name: string, message: Message): HTMLElement {
  const payload = message.payload.$ref
    ? described.components.schemas[message.payload.$ref.split("/").at(-1) ?? ""]
    : message.payload;
  const made = element("section", "", element("h3", message.name));
  made.id = name;
  made.append(prose(message.summary ?? ""));
  if (message.description) made.append(prose(message.description));
  made.append(fields(payload ?? {}));
  for (const example of message.examples ?? []) {
    made.append(element("pre", JSON.stringify(example.payload)));
  }
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
    root.append(element("h2", title));
    for (const [name, message] of named) {
      if (asked.includes(name) === isAsked) root.append(section(described, name, message));
    }
  }
  const codes = Object.entries(described["x-close-codes"]).map(([code, why]) =>
    row(element("code", code), document.createTextNode(why)),
  );
  root.append(element("h2", "Close codes"), element("table", "", ...codes));
}

const root = document.querySelector<HTMLElement>("#docs");
if (root) {
  const answer = await fetch("/asyncapi.json");
  show((await answer.json()) as Described, root);
}
