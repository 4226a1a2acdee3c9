// The REST reference: Swagger UI over the gateway's own description. Asks nobody else.

import SwaggerUI, { type System } from "swagger-ui-dist/swagger-ui-es-bundle.js";

import { takeToken } from "../session.ts";
import { makeReadable, type OpenApi } from "./readable.ts";

const ENDLESS = "/v1/stream"; // which Swagger UI would wait for
const token = takeToken();

// What is changed of Swagger UI: what has no end is not tried, and the dialog for tokens begins at
// the first of them, where each of its fields would ask for the focus.
const changes = () => ({
  statePlugins: {
    spec: { wrapSelectors: { allowTryItOutFor: () => (_: unknown, path: string) => path !== ENDLESS } },
  },
  wrapComponents: {
    Input: (Original: unknown, system: System) => (given: Record<string, unknown>) =>
      system.React.createElement(Original, { ...given, autoFocus: false }),
  },
});

async function show(): Promise<void> {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`/openapi.json: ${answer.status}`);
  const spec = (await answer.json()) as OpenApi;
  makeReadable(spec);
  const shown = SwaggerUI({
    spec,
    dom_id: "#docs",
    deepLinking: true,
    docExpansion: "list",
    syntaxHighlight: false, // of a whole chain it takes seconds
    defaultModelsExpandDepth: -1, // the list of schemas, which routes show in their places
    defaultModelExpandDepth: 3,
    tryItOutEnabled: true,
    persistAuthorization: false, // a token is not kept beyond the tab
    validatorUrl: null, // a badge from elsewhere
    plugins: [changes],
    onComplete: () => {
      if (token) shown.preauthorizeApiKey("bearer", token);
    },
  });
}

function followColours(): void {
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", isDark.matches);
  isDark.addEventListener("change", follow);
  follow();
}

followColours();
show().catch((error: unknown) => {
  const box = document.getElementById("docs");
  if (box) box.textContent = `The description cannot be had: ${String(error)}`;
});
