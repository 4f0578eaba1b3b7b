// Copies the files that are embedded from node_modules/ to vendor/. Run after `npm ci --ignore-scripts`.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const files = {
  "htmx.min.js": "htmx.org/dist/htmx.min.js",
  "sse.min.js": "htmx-ext-sse/dist/sse.min.js",
  "idiomorph-ext.min.js": "idiomorph/dist/idiomorph-ext.min.js",
  "xterm.js": "@xterm/xterm/lib/xterm.js",
  "xterm.css": "@xterm/xterm/css/xterm.css",
  "addon-fit.js": "@xterm/addon-fit/lib/addon-fit.js",
};
const here = (path) => new URL(path, import.meta.url);
mkdirSync(here("vendor/"), { recursive: true });
for (const [name, from] of Object.entries(files)) {
  // Source maps are not embedded, so nothing points to them.
  const text = readFileSync(here(`node_modules/${from}`), "utf8").replace(/^\/\/# sourceMappingURL=.*$/m, "");
  writeFileSync(here(`vendor/${name}`), text);
}
