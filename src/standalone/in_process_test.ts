import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { dirname } from "node:path";
import { newKeyAndRequest } from "../identity/csr.ts";
import { openInProcessIssuer } from "./in_process.ts";
import { type CertificateRequest, IssuingError, type PodIdentity } from "../identity/issuer.ts";
import { openssl } from "../identity/openssl_command.ts";

const POD: PodIdentity = {
  uid: "3c9a1c1e-8a0f-4c6e-9a69-0c7a9f6a6a11",
  namespace: "shop",
  name: "web-0",
  serviceAccount: "web",
  addresses: ["10.0.0.1", "fd00::1"],
};

Deno.test("OpenSSL accepts a pod's certificate and reads the template from it", async () => {
  await withDirectory(async (directory) => {
    const issuer = await openInProcessIssuer({
      directory,
      trustDomain: "cluster.local",
      ttlSeconds: 600,
    });
    const { csr } = await newKeyAndRequest();
    const issued = await issuer.issue(POD, from(csr));
    strictEqual(issued.chain.length, 1);
    const leaf = issued.chain[0] ?? new Uint8Array();

    deepStrictEqual(await issuer.trustBundle(), [await der(`${directory}/ca.crt`)]);
    for (const purpose of ["sslserver", "sslclient"]) {
      const { text } = await verify(directory, leaf, "-purpose", purpose);
      match(text, /: OK/, text);
    }

    const { text } = await openssl(["x509", "-inform", "DER", "-noout", "-text"], leaf);
    match(text, /Version: 3/);
    match(text, /Issuer: CN = kube-gateway CA/);
    match(text, /Subject: *\n/);
    match(text, /X509v3 Subject Directory Attributes: *\n/);
    match(text, /Basic Constraints: critical\n +CA:FALSE\n/);
    match(text, /X509v3 Key Usage: critical\n +Digital Signature\n/);
    match(
      text,
      /Extended Key Usage: *\n +TLS Web Server Authentication, TLS Web Client Authentication\n/,
    );
    match(
      text,
      /Alternative Name: critical\n +URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/web, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1\n/,
    );
    match(text, /Authority Key Identifier/);
    match(text, /Subject Key Identifier/);
    strictEqual(text.match(/X509v3 /g)?.length, 8, "the template's extensions and no other");

    const [notBefore, notAfter] = [issued.notBefore.getTime(), issued.notAfter.getTime()];
    strictEqual(notAfter - notBefore, (600 + 300) * 1000);
    strictEqual(Math.abs(notAfter - Date.now() - 600_000) < 10_000, true);
    const dates = await openssl([
      "x509",
      "-inform",
      "DER",
      "-noout",
      "-serial",
      "-enddate",
    ], leaf);
    match(dates.text, new RegExp(`serial=0*${issued.serial.replace(/^0+/, "")}`, "i"));
    strictEqual(
      Date.parse(dates.text.match(/notAfter=(.*)/)?.[1] ?? ""),
      notAfter,
      "the dates told are the certificate's",
    );
  });
});

Deno.test("the CA is a constrained root of one trust domain, in private files", async () => {
  await withDirectory(async (directory) => {
    await openInProcessIssuer({ directory, trustDomain: "cluster.local", ttlSeconds: 600 });
    strictEqual(((await Deno.stat(directory)).mode ?? 0) & 0o777, 0o700);
    for (const file of ["ca.key", "ca.crt"]) {
      strictEqual(((await Deno.stat(`${directory}/${file}`)).mode ?? 0) & 0o777, 0o600, file);
    }
    const { text } = await openssl([
      "x509",
      "-in",
      `${directory}/ca.crt`,
      "-noout",
      "-text",
    ]);
    match(text, /Basic Constraints: critical\n +CA:TRUE, pathlen:0\n/);
    match(text, /X509v3 Key Usage: critical\n +Certificate Sign, CRL Sign\n/);
    match(text, /Alternative Name: *\n +URI:spiffe:\/\/cluster.local\n/);
    match(text, /Subject Key Identifier/);
    match(text, /NIST CURVE: P-256/);
    const days = await openssl([
      "x509",
      "-in",
      `${directory}/ca.crt`,
      "-noout",
      "-checkend",
      String(3649 * 86400),
    ]);
    match(days.text, /will not expire/);
    match((await openssl(["pkey", "-in", `${directory}/ca.key`, "-noout"])).text, /^$/);
    deepStrictEqual((await Array.fromAsync(Deno.readDir(directory + "/.."))).length, 1);
  });
});

Deno.test("agents that open the directory at once share one CA", async () => {
  for (let round = 0; round < 5; round++) {
    await withDirectory(async (directory) => {
      const issuers = await Promise.all(
        Array.from(
          { length: 8 },
          () => openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 }),
        ),
      );
      const bundles = await Promise.all(issuers.map((issuer) => issuer.trustBundle()));
      const [first] = bundles;
      for (const bundle of bundles) deepStrictEqual(bundle, first);
      // Certificates of any of them lead to the one root.
      const { csr } = await newKeyAndRequest();
      for (const issuer of issuers) {
        const [leaf = new Uint8Array()] = (await issuer.issue(POD, from(csr))).chain;
        match((await verify(directory, leaf)).text, /: OK/);
      }
      const left = (await Array.fromAsync(Deno.readDir(directory + "/.."))).map((e) => e.name);
      deepStrictEqual(left, ["ca"], "losers leave nothing behind");
    });
  }
});

Deno.test("nothing but the key is taken from the request", async () => {
  await withDirectory(async (directory) => {
    const issuer = await openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
    const greedy = await openssl([
      ..."req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -outform DER"
        .split(" "),
      ..."-subj /O=system:masters -addext basicConstraints=critical,CA:TRUE".split(" "),
      ..."-addext keyUsage=keyCertSign -addext subjectAltName=URI:spiffe://a/ns/x/sa/admin".split(
        " ",
      ),
    ]);
    strictEqual(greedy.ok, true, greedy.text);
    const [leaf = new Uint8Array()] = (await issuer.issue(POD, from(greedy.bytes))).chain;
    const { text } = await openssl(["x509", "-inform", "DER", "-noout", "-text"], leaf);
    match(text, /CA:FALSE/);
    match(text, /Subject: *\n/);
    strictEqual(/admin|masters|Certificate Sign/.test(text), false, text);
    strictEqual(text.match(/X509v3 /g)?.length, 8);
  });
});

Deno.test("serial numbers are positive, long and never repeat", async () => {
  await withDirectory(async (directory) => {
    const issuer = await openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
    const { csr } = await newKeyAndRequest();
    const seen = new Set<string>();
    for (let i = 0; i < 40; i++) {
      const { serial, chain: [leaf] } = await issuer.issue(POD, from(csr));
      match(serial, /^[0-9a-f]{28,32}$/);
      seen.add(serial);
      const { text } = await openssl(["x509", "-inform", "DER", "-noout", "-serial"], leaf);
      match(text, /^serial=[0-9A-F]+\n$/, "no minus sign");
    }
    strictEqual(seen.size, 40);
  });
});

Deno.test("a certificate never outlives its CA", async () => {
  await withDirectory(async (directory) => {
    await foreignCa(directory, { days: "1" });
    const issuer = await openInProcessIssuer({
      directory,
      trustDomain: "a",
      ttlSeconds: 30 * 86400,
    });
    const { csr } = await newKeyAndRequest();
    const { notAfter, notBefore } = await issuer.issue(POD, from(csr));
    strictEqual(notAfter.getTime() <= Date.now() + 86_400_000, true);
    strictEqual(notBefore.getTime() >= Date.now() - 300_000, true);
  });
});

Deno.test("hostile requests are denied with their reason", async () => {
  const request = async (args: string) => {
    const { ok, bytes, text } = await openssl([
      ...`req -new -nodes -keyout /dev/null -outform DER -subj /CN=x ${args}`.split(" "),
    ]);
    strictEqual(ok, true, text);
    return bytes;
  };
  const { csr } = await newKeyAndRequest();
  const other = (await newKeyAndRequest()).csr;
  const names = Array.from({ length: 2000 }, (_, i) => `DNS:name-${i}`).join(",");
  const badSignature = csr.slice();
  badSignature[csr.length - 1] = (csr[csr.length - 1] ?? 0) ^ 1;
  // Another's public key (the 65 bytes of the point) under our signature.
  const stolenKey = csr.slice();
  const point = indexOf(csr, [0x03, 0x42, 0x00, 0x04]) + 4;
  stolenKey.set(other.subarray(point, point + 64), point);
  const notOnCurve = csr.slice();
  notOnCurve.fill(1, point, point + 64);

  await withDirectory(async (directory) => {
    const issuer = await openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
    for (
      const [name, bytes, reason] of [
        ["empty", new Uint8Array(), "bad_request"],
        ["garbage", crypto.getRandomValues(new Uint8Array(300)), "bad_request"],
        ["cut off", csr.slice(0, -10), "bad_request"],
        ["huge", new Uint8Array(1e6), "bad_request"],
        [
          "2000 names",
          await request(
            `-newkey ec -pkeyopt ec_paramgen_curve:P-256 -addext subjectAltName=${names}`,
          ),
          "bad_request",
        ],
        ["RSA", await request("-newkey rsa:2048"), "bad_key"],
        ["P-384", await request("-newkey ec -pkeyopt ec_paramgen_curve:P-384"), "bad_key"],
        ["secp256k1", await request("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1"), "bad_key"],
        ["Ed25519", await request("-newkey ed25519"), "bad_key"],
        ["bad signature", badSignature, "bad_proof"],
        ["another's key", stolenKey, "bad_proof"],
        ["a key that is no point", notOnCurve, "bad_proof"],
      ] as const
    ) {
      await rejects(issuer.issue(POD, from(bytes)), (error: unknown) => {
        strictEqual(error instanceof IssuingError && error.reason, reason, `${name}: ${error}`);
        return true;
      });
    }
    await issuer.issue(POD, from(csr));
    await rejects(issuer.issue(POD, from(csr), AbortSignal.abort()), { name: "AbortError" });
  });
});

Deno.test("a pod that Kubernetes would not have is denied", async () => {
  const { csr } = await newKeyAndRequest();
  await withDirectory(async (directory) => {
    const issuer = await openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
    for (
      const [change, reason] of [
        [{ addresses: [] }, "no_address"],
        [{ addresses: ["10.0.0.1", "10.0.0.2", "10.0.0.3"] }, "bad_pod"],
        [{ addresses: ["127.0.0.1"] }, "bad_pod"],
        [{ addresses: ["10.0.0.01"] }, "bad_pod"],
        [{ addresses: ["web.shop"] }, "bad_pod"],
        [{ namespace: "a/sa/admin" }, "bad_pod"],
        [{ serviceAccount: "" }, "bad_pod"],
        [{ uid: "../x" }, "bad_pod"],
        [{ name: "A b" }, "bad_pod"],
      ] as const
    ) {
      await rejects(issuer.issue({ ...POD, ...change }, from(csr)), {
        name: "IssuingError",
        reason,
      });
    }
  });
});

Deno.test("a CA that others could touch, or that is not ours, is refused and left as it is", async () => {
  const good = (directory: string) =>
    openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
  const cases: [string, (directory: string) => Promise<unknown>, RegExp][] = [
    ["directory mode", (d) => Deno.chmod(d, 0o750), /\/ca: its mode 750 .*chmod 700/],
    ["key mode", (d) => Deno.chmod(`${d}/ca.key`, 0o640), /ca\.key: its mode 640 .*chmod 600/],
    ["certificate mode", (d) => Deno.chmod(`${d}/ca.crt`, 0o602), /ca\.crt: its mode 602/],
    ["no key", (d) => Deno.remove(`${d}/ca.key`), /ca\.key: it is missing/],
    ["no certificate", (d) => Deno.remove(`${d}/ca.crt`), /ca\.crt: it is missing/],
    ["garbage key", (d) => Deno.writeTextFile(`${d}/ca.key`, "x"), /ca\.key: it cannot be read/],
    ["garbage crt", (d) => Deno.writeTextFile(`${d}/ca.crt`, "x"), /ca\.crt: it cannot be read/],
    ["a link", async (d) => {
      await Deno.rename(d, `${d}2`);
      await Deno.symlink(`${d}2`, d);
    }, /\/ca: it is no plain directory/],
    ["a file", async (d) => {
      await Deno.rename(d, `${d}2`);
      await Deno.writeTextFile(d, "");
    }, /\/ca: it is no plain directory/],
    ["trust domain", (d) => foreignCa(d, { id: "spiffe://b" }), /trust domain is "spiffe:\/\/b"/],
    ["path in ID", (d) => foreignCa(d, { id: "spiffe://a/ns/x/sa/y" }), /trust domain is/],
    ["two IDs", (d) => foreignCa(d, { id: "spiffe://a,URI:spiffe://b" }), /trust domain is/],
    ["a signature changed", async (d) => {
      const changed = await der(`${d}/ca.crt`);
      changed[changed.length - 1] = (changed[changed.length - 1] ?? 0) ^ 1;
      const pem = changed.toBase64().replace(/.{64}/g, "$&\n");
      await Deno.writeTextFile(
        `${d}/ca.crt`,
        `-----BEGIN CERTIFICATE-----\n${pem}\n-----END CERTIFICATE-----\n`,
      );
    }, /not signed by its own key/],
    ["no CA", (d) => foreignCa(d, { constraints: "CA:FALSE" }), /may not sign certificates/],
    ["another's key", async (d) => {
      const key = await Deno.readTextFile(`${d}/ca.key`);
      await foreignCa(d, {});
      await Deno.writeTextFile(`${d}/ca.key`, key);
    }, /ca\.key: it is not the key of ca\.crt/],
  ];
  if (Deno.uid() === 0) {
    cases.push(
      ["owner", (d) => Deno.chown(`${d}/ca.key`, 12345, 12345), /ca\.key: user 12345 owns it/],
      ["directory's owner", (d) => Deno.chown(d, 12345, 12345), /\/ca: user 12345 owns it/],
    );
  }
  for (const [name, spoil, message] of cases) {
    await withDirectory(async (directory) => {
      await good(directory);
      await spoil(directory);
      const before = await listing(directory);
      await rejects(good(directory), (error: unknown) => {
        strictEqual(
          error instanceof IssuingError && error.reason,
          "ca_unusable",
          `${name}: ${error}`,
        );
        match((error as Error).message, message, name);
        return true;
      });
      deepStrictEqual(await listing(directory), before, `${name}: nothing was changed`);
    });
  }
});

Deno.test("an expired CA signs nothing more, and is not opened", async () => {
  await withDirectory(async (directory) => {
    await foreignCa(directory, { days: "1" });
    const open = () => openInProcessIssuer({ directory, trustDomain: "a", ttlSeconds: 60 });
    const issuer = await open();
    const { csr } = await newKeyAndRequest();
    const expired = {
      reason: "ca_unusable",
      message: /ca\.crt: it expired .*remove the directory/,
    };
    await withClockAhead(2 * 86_400_000, async () => {
      await rejects(issuer.issue(POD, from(csr)), expired);
      await rejects(open(), expired);
    });
    await withClockAhead(-3_600_000, async () => {
      await rejects(open(), { reason: "ca_unusable", message: /not valid before .*clock/ });
    });
  });
});

Deno.test("options that make no sense are refused", async () => {
  for (
    const change of [
      { trustDomain: "A" },
      { trustDomain: "" },
      { ttlSeconds: 0 },
      { ttlSeconds: 1.5 },
      { ttlSeconds: NaN },
      { ttlSeconds: 91 * 86400 },
    ]
  ) {
    const options = { directory: "/nonexistent/ca", trustDomain: "a", ttlSeconds: 60, ...change };
    await rejects(openInProcessIssuer(options), TypeError);
  }
  const options = { directory: "/nonexistent/ca", trustDomain: "a", ttlSeconds: 60 };
  await rejects(openInProcessIssuer(options), { reason: "ca_unusable" });
});

/** Runs `use` with the path of a CA directory that does not exist yet, alone in its parent. */
async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir();
  try {
    await use(`${parent}/ca`);
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

async function withClockAhead(milliseconds: number, use: () => Promise<void>): Promise<void> {
  const RealDate = Date;
  try {
    globalThis.Date = class extends RealDate {
      constructor(value?: number) {
        super(value ?? RealDate.now() + milliseconds);
      }
    } as DateConstructor;
    await use();
  } finally {
    globalThis.Date = RealDate;
  }
}

/** Replaces the CA by one that `openssl` made. */
async function foreignCa(
  directory: string,
  { id = "spiffe://a", days = "10", constraints = "CA:TRUE" },
): Promise<void> {
  await Deno.mkdir(directory, { recursive: true, mode: 0o700 });
  const made = await openssl([
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other".split(" "),
    ...`-keyout ${directory}/ca.key -out ${directory}/ca.crt -days ${days}`.split(" "),
    ...`-addext basicConstraints=critical,${constraints} -addext keyUsage=keyCertSign`.split(" "),
    ...`-addext subjectAltName=URI:${id}`.split(" "),
  ]);
  strictEqual(made.ok, true, made.text);
  for (const file of ["ca.key", "ca.crt"]) await Deno.chmod(`${directory}/${file}`, 0o600);
}

async function verify(directory: string, leaf: Uint8Array, ...args: string[]) {
  const file = `${directory}/../leaf.der`;
  await Deno.writeFile(file, leaf);
  try {
    return await openssl([
      "verify",
      "-x509_strict",
      "-CAfile",
      `${directory}/ca.crt`,
      ...args,
      file,
    ]);
  } finally {
    await Deno.remove(file);
  }
}

async function der(pemFile: string): Promise<Uint8Array> {
  return new Uint8Array((await openssl(["x509", "-in", pemFile, "-outform", "DER"])).bytes);
}

async function listing(directory: string): Promise<string[]> {
  const parent = await Array.fromAsync(Deno.readDir(dirname(directory)), (entry) => entry.name);
  const inside = await Array.fromAsync(Deno.readDir(directory), (entry) => entry.name)
    .catch(() => []);
  return [...parent.sort(), ...inside.sort()];
}

function indexOf(bytes: Uint8Array, part: number[]): number {
  return bytes.findIndex((_, at) => part.every((byte, i) => bytes[at + i] === byte));
}

/** This issuer takes the key from the request alone. */
function from(csr: Uint8Array): CertificateRequest {
  return { csr, publicKey: new Uint8Array() };
}
