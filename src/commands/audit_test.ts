import { deepStrictEqual } from "node:assert/strict";
import { serveAdmin } from "../operate/admin.ts";
import type { AgentAudit } from "../operate/status.ts";

const MAIN = new URL("../main.ts", import.meta.url).pathname;

Deno.test("the command audit ends with 1 when something was found, else with 0", async () => {
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/admin.sock`;
  let findings: AgentAudit["findings"] = [];
  const notAsked = () => Promise.reject(new Error("not asked"));
  using _admin = serveAdmin(socket, {
    "/status": notAsked,
    "/connections": notAsked,
    "/audit": () => Promise.resolve({ node: "node-a", at: "", secondsAgo: 0, parts: 1, findings }),
  });
  const audit = async () => {
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", MAIN, "audit", "--admin-socket", socket],
    }).output();
    return [code, new TextDecoder().decode(stdout)];
  };
  try {
    deepStrictEqual(await audit(), [
      0,
      "node-a: everything is as it should be (1 pods and maps)\n",
    ]);
    findings = [{ where: "shop/web", kind: "link", what: "was gone" }];
    deepStrictEqual(await audit(), [1, "! node-a: shop/web: was gone (link)\n"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
