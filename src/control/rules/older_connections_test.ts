import { strictEqual } from "node:assert/strict";
import { mustEnd } from "./older_connections.ts";
import { settingsOf } from "./settings.ts";

const INBOUND = { isInbound: true, port: 80, peerIdentity: "spiffe://td/ns/shop/sa/web" };
const OUTBOUND = { ...INBOUND, isInbound: false, port: 40_000 };

Deno.test("what is older than the enrolment ends at once where it is forbidden, or after the grace", () => {
  const key = "kube-gateway.io/";
  for (
    const [annotations, seconds, inbound, outbound] of [
      [{}, 1e6, false, false],
      [{ [`${key}grace`]: "10m" }, 599, false, false],
      [{ [`${key}grace`]: "10m" }, 600, true, true],
      [{ [`${key}grace`]: "soon" }, 0, true, true],
      [{ [`${key}inbound`]: "strict" }, 0, true, false],
      [{ [`${key}egress`]: "strict" }, 0, false, true],
      [{ [`${key}allow`]: "shop/web:80" }, 1e6, false, false],
      [{ [`${key}allow`]: "shop/web:81" }, 0, true, false],
      [{ [`${key}allow`]: "ops/*" }, 0, true, false],
      [{ [`${key}allow`]: "dry-run: ops/*" }, 0, false, false],
      [{ [`${key}allow`]: "" }, 0, true, false],
    ] as const
  ) {
    const settings = settingsOf(annotations);
    const name = `${JSON.stringify(annotations)} ${seconds}`;
    strictEqual(mustEnd(INBOUND, settings, seconds), inbound, name);
    strictEqual(mustEnd(OUTBOUND, settings, seconds), outbound, name);
  }
  const allow = settingsOf({ [`${key}allow`]: "*/*" });
  strictEqual(mustEnd({ ...INBOUND, peerIdentity: undefined }, allow, 0), true, "nobody knows who");
});
