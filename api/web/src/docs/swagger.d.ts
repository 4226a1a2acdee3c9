declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  /** What a plugin gets. */
  export interface System {
    React: { createElement(component: unknown, given: Record<string, unknown>): unknown };
  }
  export interface Shown {
    preauthorizeApiKey(scheme: string, value: string): void;
  }
  export default function SwaggerUI(options: Record<string, unknown>): Shown;
}
