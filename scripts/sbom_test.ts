import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { readFileSync } from "node:fs";
import { debianComponents, npmComponents, readLock } from "./sbom.ts";

const LOCK = readLock(JSON.stringify({
  npm: {
    "@scope/one@1.0.0_two@2.0.0": { integrity: "sha512-AAEC", dependencies: ["two"] },
    "two@2.0.0": { integrity: "sha512-Aw==", dependencies: ["three@3.0.0"] },
    "three@3.0.0": { integrity: "sha512-BA==" },
    "three@4.0.0": { integrity: "sha512-BQ==" },
  },
}));

Deno.test("a package brings what it depends on, once, and nothing else", () => {
  deepStrictEqual(
    npmComponents(LOCK, ["@scope/one@1.0.0", "two@2.0.0"]).map(({ purl }) => purl),
    ["pkg:npm/%40scope/one@1.0.0", "pkg:npm/three@3.0.0", "pkg:npm/two@2.0.0"],
  );
  const [one] = npmComponents(LOCK, ["@scope/one@1.0.0"]);
  deepStrictEqual([one?.name, one?.version, one?.hashes], [
    "@scope/one",
    "1.0.0",
    [{ alg: "SHA-512", content: "000102" }],
  ]);
  throws(() => npmComponents(LOCK, ["three"]), /deno\.lock has 2 of three/);
  throws(() => npmComponents(LOCK, ["four@1.0.0"]), /deno\.lock has 0 of four/);
});

Deno.test("the project's own lock file is understood, whole", () => {
  const lock = readLock(readFileSync(new URL("../deno.lock", import.meta.url), "utf8"));
  const keys = Object.keys(lock.npm);
  const all = npmComponents(lock, keys);
  strictEqual(all.length, keys.length);
  ok(
    all.every(({ hashes, version }) => hashes?.[0]?.content.length === 128 && /^\d/.test(version)),
  );
});

Deno.test("Debian's packages are taken from dpkg-query's list", () => {
  deepStrictEqual(debianComponents("libbpf1 1:1.5.0-3 amd64\n").map(({ purl }) => purl), [
    "pkg:deb/debian/libbpf1@1%3A1.5.0-3?arch=amd64",
  ]);
  throws(() => debianComponents("libbpf1\n"), /not "package version architecture"/);
});
