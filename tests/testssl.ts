/**
 * testssl.sh (Debian's package of that name) against a pod's tunnel port: `deno task testssl`, some
 * two minutes. Prints its report; fails when it finds what the agent is to answer for. It is no
 * part of the suite: most of it is what TLS before 1.3 got wrong.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const SECTIONS = ["--protocols", "--std", "--pfs", "--server-defaults", "--vulnerable"];

/**
 * What it complains of, and is so on purpose: nobody's browser knows the CA, and a certificate
 * lasts a day.
 */
const ON_PURPOSE = [/^Chain of trust +NOT ok \(chain incomplete\)$/, /neither CRL nor OCSP/];

await using lab = await openScene([...WEB_AND_API, { name: "intruder", node: "node-a" }]);
const { ipv4 } = lab.pod("api");
const { stdout, stderr } = await lab.pod("intruder").run(
  [
    "testssl",
    "--quiet",
    "--color",
    "0",
    "--warnings",
    "off",
    ...SECTIONS,
    `${ipv4}:${TUNNEL_PORT}`,
  ],
  { timeoutMs: 600_000 },
);
console.log(stdout, stderr);
const lines = stdout.split("\n").map((line) => line.trim());
assert(lines.some((line) => /^TLS 1\.3 +offered/.test(line)), "it has not come to TLS");
for (const version of ["SSLv2", "SSLv3", "TLS 1", "TLS 1.1", "TLS 1.2"]) {
  assert(lines.some((line) => line.startsWith(`${version} `) && /not offered/.test(line)), version);
}
const complaints = lines.filter((line) =>
  /NOT ok|VULNERABLE/.test(line) && !ON_PURPOSE.some((each) => each.test(line))
);
assert.deepEqual(complaints, []);
assert.equal(lab.agent("node-b").isRunning, true);
