// Where the page begins.

import { App } from "./app.ts";

new App().start();
