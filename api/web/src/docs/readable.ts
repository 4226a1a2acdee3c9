// The gateway's description as Swagger UI had better show it; the document itself says more.
//
// An example of what may be left out would be sent by whoever tries a route, so it is said in
// words. Headers and refusals that every route has are not repeated at each.

const OF_EVERY_ANSWER = ["X-Request-Id", "RateLimit", "RateLimit-Policy"];
const OF_EVERY_ROUTE = ["405", "408", "413", "414", "421", "431", "500"];

interface Schema {
  type?: string;
  anyOf?: unknown[];
  enum?: unknown[];
  default?: unknown;
  items?: Schema;
}

interface Parameter {
  schema?: Schema;
  description?: string;
  required?: boolean;
  example?: unknown;
}

interface Answer {
  headers?: Record<string, unknown>;
  content?: Record<string, { schema?: Schema; example?: unknown }>;
}

interface Operation {
  parameters?: Parameter[];
  responses: Record<string, Answer & { $ref?: string }>;
}

export interface OpenApi {
  paths: Record<string, Record<string, Operation>>;
  components: { responses: Record<string, Answer> };
}

/** Change a description to what is worth showing of it. */
export function makeReadable(description: OpenApi): void {
  const brief = new Set<string>();
  for (const operation of Object.values(description.paths).flatMap((path) => Object.values(path))) {
    for (const parameter of operation.parameters ?? []) sayExample(parameter);
    for (const [status, answer] of Object.entries(operation.responses)) {
      if (answer.$ref === undefined) leaveOut(answer);
      else if (OF_EVERY_ROUTE.includes(status)) brief.add(answer.$ref);
    }
  }
  for (const [name, answer] of Object.entries(description.components.responses)) {
    leaveOut(answer);
    if (brief.has(`#/components/responses/${name}`)) delete answer.content;
  }
}

function sayExample(parameter: Parameter): void {
  const { example, schema = {} } = parameter;
  if (schema.anyOf) parameter.schema = { type: "string" }; // forms of a text, which words tell
  if (parameter.required || example === undefined) return;
  delete parameter.example;
  if (schema.enum || schema.items?.enum || schema.default !== undefined) return;
  const text = Array.isArray(example) ? example.join(",") : String(example);
  parameter.description = `${parameter.description ?? ""} (such as \`${text}\`)`;
}

function leaveOut(answer: Answer): void {
  // The schema stands at the first type; Swagger UI goes over every value of the document.
  for (const told of Object.values(answer.content ?? {}).slice(1)) delete told.schema;
  const headers = Object.entries(answer.headers ?? {});
  const own = headers.filter(([name]) => !OF_EVERY_ANSWER.includes(name));
  if (own.length) answer.headers = Object.fromEntries(own);
  else delete answer.headers;
}
