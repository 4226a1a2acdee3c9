// The REST reference: Swagger UI over the gateway's own description. Asks nobody else.

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";

SwaggerUI({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  tryItOutEnabled: true,
  persistAuthorization: false, // a token is not kept beyond the tab
  validatorUrl: null, // a badge from elsewhere
});
