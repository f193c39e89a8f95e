/**
 * The rules of this code base, for deno lint:
 * - native-only: pointers and foreign functions stay in src/native/.
 * - one-way-imports: the folders of src/ form layers, and imports point down, those of types too.
 * - keep-causes: an error that is thrown for another has that one as its cause.
 * - comment-width: comments of their own lines have at most 100 columns, as the formatter keeps the
 *   code; what is drawn or quoted (indented by two spaces or more) may have more.
 */

/** From the top; a folder may import itself and those after it. src/README.md has the same list. */
export const LAYERS = [
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
        return importVisitor((node, source) => {
          if (!source.startsWith(".")) return;
          const to = layerOf(new URL(source, `file://${context.filename}`).pathname);
          if (to === undefined || allowed(from, to)) return;
          context.report({ node, message: `src/${from} must not import src/${to}` });
        });
      },
    },
    "keep-causes": {
      create(context) {
        return {
          "CatchClause ThrowStatement > NewExpression"(node: Deno.lint.NewExpression) {
            if (node.arguments.some(hasCause)) return;
            context.report({
              node,
              message: "the caught error is lost: give it to the new one as its cause",
            });
          },
        };
      },
    },
    "comment-width": {
      create(context) {
        return {
          Program() {
            for (const comment of context.sourceCode.getAllComments()) {
              if (!hasLongLine(context.sourceCode.text, comment.range)) continue;
              context.report({
                range: comment.range,
                message: `a comment has lines of more than ${WIDTH} columns`,
              });
            }
          },
        };
      },
    },
  },
};
export default plugin;

/** As the formatter's `lineWidth` in deno.json. */
const WIDTH = 100;

/** Whether a comment that has its lines to itself has one that is prose, and too long. */
function hasLongLine(source: string, [start, end]: [number, number]): boolean {
  const from = source.lastIndexOf("\n", start - 1) + 1;
  if (source.slice(from, start).trim() !== "") return false;
  return source.slice(from, end).split("\n").some((line) =>
    line.length > WIDTH && !/^\s*(\/?\*+|\/\/) {2,}/.test(line)
  );
}

/**
 * Visits everything that names another module: imports and exports, of types too, and `import()`.
 */
export function importVisitor(
  visit: (node: Deno.lint.Node, source: string) => void,
): Deno.lint.LintVisitor {
  const named = (
    node:
      | Deno.lint.ImportDeclaration
      | Deno.lint.ExportNamedDeclaration
      | Deno.lint.ExportAllDeclaration
      | Deno.lint.ImportExpression,
  ) => {
    if (node.source?.type !== "Literal") return;
    if (typeof node.source.value === "string") visit(node, node.source.value);
  };
  return {
    ImportDeclaration: named,
    ExportNamedDeclaration: named,
    ExportAllDeclaration: named,
    ImportExpression: named,
  };
}

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

/** Whether an argument is an object with a `cause`. */
function hasCause(argument: Deno.lint.Expression | Deno.lint.SpreadElement): boolean {
  return argument.type === "ObjectExpression" &&
    argument.properties.some((property) =>
      property.type === "Property" && property.key.type === "Identifier" &&
      property.key.name === "cause"
    );
}
