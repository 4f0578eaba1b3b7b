// Copies the files that are embedded from node_modules/ to vendor/. Run after `npm ci --ignore-scripts`.
import { copyFileSync, mkdirSync } from "node:fs";

const files = {
  "htmx.min.js": "htmx.org/dist/htmx.min.js",
  "sse.min.js": "htmx-ext-sse/dist/sse.min.js",
  "idiomorph-ext.min.js": "idiomorph/dist/idiomorph-ext.min.js",
};
const here = (path) => new URL(path, import.meta.url);
mkdirSync(here("vendor/"), { recursive: true });
for (const [name, from] of Object.entries(files)) copyFileSync(here(`node_modules/${from}`), here(`vendor/${name}`));
