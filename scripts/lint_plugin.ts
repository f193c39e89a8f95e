/**
 * Two rules of this code base, for deno lint:
 * - native-only: pointers and foreign functions stay in src/native/.
 * - one-way-imports: the folders of src/ form layers, and imports point down. `import type` may point anywhere,
 *   since it leaves nothing at run time.
 */

/** From the top; a folder may import itself and those after it. */
const LAYERS = [
  "main",
  "commands",
  "agent",
  "operate",
  "signer",
  "control",
  "standalone",
  "cluster",
  "relay",
  "kernel",
  "identity",
  "kubernetes",
  "native",
  "shared",
];

/** Where the order alone would allow too much. */
const NEVER: Record<string, string[]> = {
  kernel: ["identity"],
  identity: ["native"],
  kubernetes: ["native"],
};

const plugin: Deno.lint.Plugin = {
  name: "kube-gateway",
  rules: {
    "native-only": {
      create(context) {
        if (context.filename.includes("/src/native/")) return {};
        const report = (node: Deno.lint.Node, name: string) => {
          if (name !== "dlopen" && !name.startsWith("Unsafe")) return;
          context.report({ node, message: `Deno.${name} belongs in src/native/` });
        };
        return {
          'MemberExpression[object.name="Deno"]'(node: Deno.lint.MemberExpression) {
            if (node.property.type === "Identifier") report(node, node.property.name);
          },
          'VariableDeclarator[init.name="Deno"] ObjectPattern Property'(node: Deno.lint.Property) {
            if (node.key.type === "Identifier") report(node, node.key.name);
          },
        };
      },
    },
    "one-way-imports": {
      create(context) {
        const from = layerOf(context.filename);
        if (from === undefined || context.filename.endsWith("_test.ts")) return {};
        return {
          ImportDeclaration(node) {
            if (node.importKind === "type" || !node.source.value.startsWith(".")) return;
            const to = layerOf(new URL(node.source.value, `file://${context.filename}`).pathname);
            if (to === undefined || allowed(from, to)) return;
            context.report({ node, message: `src/${from} must not import src/${to}` });
          },
        };
      },
    },
  },
};
export default plugin;

function allowed(from: string, to: string): boolean {
  if (NEVER[from]?.includes(to)) return false;
  return LAYERS.indexOf(from) <= LAYERS.indexOf(to);
}

/** The layer of a file in src/: its folder, or for one at the top its name; undefined elsewhere. */
function layerOf(file: string): string | undefined {
  const path = /\/src\/(.+)$/.exec(file)?.[1];
  if (path === undefined) return undefined;
  const [first = ""] = path.split("/");
  const name = first.replace(/\.ts$/, "");
  return LAYERS.includes(name) ? name : "shared";
}
