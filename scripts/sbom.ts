/**
 * `deno task sbom`: a software bill of materials of the image, CycloneDX 1.6, as JSON: the npm
 * packages that the program imports, with the hashes that deno.lock holds them to, the runtime, and
 * the Debian packages whose list it is given:
 *
 *     docker run --rm --entrypoint dpkg-query IMAGE --show --showformat '${Package} ${Version} ${Architecture}\n' >packages
 *     deno task sbom packages >sbom.json
 */
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { commitOf, VERSION } from "../src/commands/version.ts";

/** One component, as CycloneDX names its fields. */
export interface Component {
  readonly type: "library" | "platform" | "application";
  readonly "bom-ref": string;
  readonly name: string;
  readonly version: string;
  /** Package URL (the purl specification). */
  readonly purl: string;
  readonly hashes?: readonly { readonly alg: "SHA-512"; readonly content: string }[];
}

export type Lock = v.InferOutput<typeof LockSchema>;

const LockSchema = v.object({
  npm: v.record(
    v.string(),
    v.object({
      integrity: v.pipe(v.string(), v.startsWith("sha512-")),
      dependencies: v.optional(v.array(v.string()), []),
    }),
  ),
});

/** What of a lock file is needed here. @throws {v.ValiError} */
export function readLock(text: string): Lock {
  return v.parse(LockSchema, JSON.parse(text));
}

/**
 * The packages of a lock file that `roots` ("name@version") need, themselves included, sorted.
 *
 * @throws {Error} when one is not in the lock file.
 */
export function npmComponents({ npm }: Lock, roots: Iterable<string>): Component[] {
  const found = new Map<string, Component>();
  const visit = (key: string): void => {
    if (found.has(key)) return;
    const entry = npm[key];
    if (entry === undefined) throw new Error(`deno.lock has no ${key}`);
    found.set(key, npmComponent(key, entry.integrity));
    for (const dependency of entry.dependencies) visit(keyOf(npm, dependency));
  };
  for (const root of roots) visit(keyOf(npm, root));
  return [...found.values()].sort((a, b) => a["bom-ref"] < b["bom-ref"] ? -1 : 1);
}

/**
 * A dependency is named without its version where there is one only, and without what it was
 * resolved with.
 */
function keyOf(npm: Lock["npm"], name: string): string {
  if (name in npm) return name;
  const keys = Object.keys(npm).filter((key) =>
    key.startsWith(name.includes("@", 1) ? `${name}_` : `${name}@`)
  );
  const [key] = keys;
  if (key === undefined || keys.length > 1) {
    throw new Error(`deno.lock has ${keys.length} of ${name}`);
  }
  return key;
}

function npmComponent(key: string, integrity: string): Component {
  // "@scope/name@1.2.3_peer@4.5.6": a peer that it was resolved with follows an underscore.
  const [, name = "", version = ""] = /^(@?[^@]+)@([^_]+)/.exec(key) ?? [];
  const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
  const content = Uint8Array.fromBase64(integrity.slice("sha512-".length)).toHex();
  return {
    type: "library",
    "bom-ref": key,
    name,
    version,
    purl,
    hashes: [{ alg: "SHA-512", content }],
  };
}

/**
 * From lines of name, version and architecture, as dpkg-query writes them. @throws {Error} for
 * another line.
 */
export function debianComponents(text: string): Component[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const [name, version, architecture, ...rest] = line.split(" ");
    if (
      name === undefined || version === undefined || architecture === undefined || rest.length > 0
    ) {
      throw new Error(`not "package version architecture": ${line}`);
    }
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}`;
    return { type: "library", "bom-ref": purl, name, version, purl };
  });
}

/** The packages that the program imports: "name@version" each. */
async function importedPackages(): Promise<Set<string>> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", new URL("../src/main.ts", import.meta.url).pathname],
    stderr: "inherit",
  }).output();
  const { modules } = v.parse(InfoSchema, JSON.parse(new TextDecoder().decode(stdout)));
  return new Set(modules.flatMap(({ npmPackage }) => npmPackage ?? []));
}

const InfoSchema = v.object({
  modules: v.array(v.object({ npmPackage: v.optional(v.string()) })),
});

if (import.meta.main) {
  const [packages] = Deno.args;
  const root = new URL("../", import.meta.url);
  const lock = readLock(await readFile(new URL("deno.lock", root), "utf8"));
  const components: Component[] = [
    {
      type: "platform",
      "bom-ref": "deno",
      name: "deno",
      version: Deno.version.deno,
      purl: `pkg:github/denoland/deno@v${Deno.version.deno}`,
    },
    ...npmComponents(lock, await importedPackages()),
    ...packages === undefined ? [] : debianComponents(await readFile(packages, "utf8")),
  ];
  const version = `${VERSION}+${await commitOf(root.pathname)}`;
  console.log(JSON.stringify(
    {
      bomFormat: "CycloneDX",
      specVersion: "1.6",
      version: 1,
      metadata: {
        component: {
          type: "application",
          "bom-ref": "kube-gateway",
          name: "kube-gateway",
          version,
        },
      },
      components,
    },
    null,
    2,
  ));
}
