// Bundles the page: hashed script, style and icon, the document that names them, the licences.
// Usage: node build.mjs OUTPUT_DIRECTORY. Touches nothing outside that directory, loads nothing.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";

import * as esbuild from "esbuild";

const here = import.meta.dirname;
const output = path.resolve(process.argv[2] ?? path.join(here, "dist"));

const page = { page: "src/main.ts", style: "styles.css", icon: "icon.svg" };
const docs = {
  docs: "src/docs/rest.ts",
  "docs-style": "src/docs/rest.css",
  "docs-live": "src/docs/live.ts",
  "docs-live-style": "src/docs/live.css",
};
const options = {
  absWorkingDir: here,
  outdir: path.join(output, "assets"),
  entryNames: "[name]-[hash]",
  loader: { ".svg": "copy" },
  bundle: true,
  minify: true,
  sourcesContent: false,
  format: "esm",
  target: "es2022",
  legalComments: "none", // the licences are written out whole below
  metafile: true,
  logLevel: "warning",
};
const results = await Promise.all([
  esbuild.build({ ...options, entryPoints: page, sourcemap: true }),
  // No map: what is bundled here comes minified, and a map of that is larger and says nothing.
  esbuild.build({ ...options, entryPoints: docs }),
]);
const inputs = results.flatMap((result) => Object.keys(result.metafile.inputs));

const built = new Map();
for (const [file, facts] of results.flatMap((each) => Object.entries(each.metafile.outputs))) {
  if (facts.entryPoint) built.set(facts.entryPoint, path.basename(file));
}

function read(file) {
  return readFileSync(file, "utf8");
}

function address(entry) {
  const name = built.get(entry);
  if (!name) throw new Error(`nothing was built from ${entry}`);
  return `/assets/${name}`;
}

// Each document, and what its placeholders stand for.
const icon = address("icon.svg");
const documents = {
  "index.html": { script: address("src/main.ts"), style: address("styles.css"), icon },
  "docs.html": { script: address("src/docs/rest.ts"), style: address("src/docs/rest.css"), icon },
  "docs-live.html": {
    script: address("src/docs/live.ts"),
    style: address("src/docs/live.css"),
    icon,
  },
};
for (const [name, places] of Object.entries(documents)) {
  let html = read(path.join(here, name));
  for (const [place, text] of Object.entries(places)) html = html.replace(`{{${place}}}`, text);
  if (html.includes("{{")) throw new Error(`${name} has a placeholder that nothing fills`);
  writeFileSync(path.join(output, name), html);
}

// Each package, and the files of licences that lie beside what is bundled of it.
const packages = new Map();
for (const input of inputs) {
  const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
  if (!name) continue;
  const beside = path.join(here, `${input}.LICENSE.txt`);
  packages.set(name, [...(packages.get(name) ?? []), ...(existsSync(beside) ? [beside] : [])]);
}
const licences = [...packages].sort().map(([name, inside]) => {
  const folder = path.join(here, "node_modules", name);
  const { version, license, author } = JSON.parse(read(path.join(folder, "package.json")));
  const text = path.join(folder, "LICENSE");
  const terms = existsSync(text) ? read(text) : `${license}, by ${author?.name ?? author}\n`;
  const more = [path.join(folder, "NOTICE"), ...inside].filter(existsSync).map(read);
  return [`${name} ${version} (${license})\n`, terms, ...more].join("\n");
});
writeFileSync(path.join(output, "LICENSES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));

for (const [entry, name] of built) {
  const bytes = readFileSync(path.join(output, "assets", name));
  const gzipped = gzipSync(bytes, { level: 9 }).length;
  console.log(`${entry} -> ${name}  ${bytes.length} bytes, ${gzipped} gzipped`);
}
