/**
 * The promise: whether a CA can vouch for a pod, the signer that reads it, the agent that takes the
 * certificate and the peers that see it say alike, for the same reason. Else a CA is rotated in
 * under which nobody can be reached.
 */
import { match, ok, strictEqual } from "node:assert/strict";
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { createPrivateKey } from "node:crypto";
import { newKeyAndRequest } from "../identity/csr.ts";
import { provenKey, signLeaf } from "../identity/leaf.ts";
import { verifyIssued } from "../identity/verify_issued.ts";
import { shakeHands, Side } from "../native/memory_handshake_for_tests.ts";
import { AlpnProtocol, type Credentials, TlsContext } from "../native/tls_context.ts";
import { TlsEngine } from "../native/tls_session.ts";
import { readCa } from "./ca.ts";
import { expired, type Made, make, secretOf } from "./made_cas.ts";

const TRUST_DOMAIN = "cluster.local";
const POD = {
  uid: "u",
  namespace: "shop",
  name: "web",
  serviceAccount: "web",
  addresses: ["10.1.0.5"],
};

const EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=x";
const CONSTRAINTS = "-addext basicConstraints=critical,CA:TRUE";
const USAGE = "-addext keyUsage=critical,keyCertSign";
const CA = `${CONSTRAINTS} ${USAGE}`;

/** `openssl req -x509` arguments, and OpenSSL's words for what is wrong. */
const KINDS: Record<string, readonly [args: string, flaw?: RegExp]> = {
  "a good one": [`${EC} ${CA}`],
  "no CA": [`${EC} -addext basicConstraints=critical,CA:FALSE`, /invalid CA/],
  "may not sign certificates": [
    `${EC} ${CONSTRAINTS} -addext keyUsage=digitalSignature`,
    /invalid CA/,
  ],
  "no key usage": [`${EC} ${CONSTRAINTS}`, /does not include key usage/],
  "basic constraints not critical": [
    `${EC} -addext basicConstraints=CA:TRUE ${USAGE}`,
    /not marked critical/,
  ],
  "no certificate below": [
    `${EC} -addext basicConstraints=critical,CA:TRUE,pathlen:0 ${USAGE}`,
  ],
  "for mail": [`${EC} ${CA} -addext extendedKeyUsage=emailProtection`, /unsuitable certificate/],
  "for servers only": [`${EC} ${CA} -addext extendedKeyUsage=serverAuth`, /unsuitable certificate/],
  "for clients only": [`${EC} ${CA} -addext extendedKeyUsage=clientAuth`, /unsuitable certificate/],
  "for servers and clients": [`${EC} ${CA} -addext extendedKeyUsage=serverAuth,clientAuth`],
  "an unknown critical extension": [
    `${EC} ${CA} -addext 1.2.3.4=critical,ASN1:UTF8String:x`,
    /unhandled critical/,
  ],
  "an unknown extension": [`${EC} ${CA} -addext 1.2.3.4=ASN1:UTF8String:x`],
  "other trust domains only": [
    `${EC} ${CA} -addext nameConstraints=critical,permitted;URI:other.local`,
    /permitted subtree/,
  ],
  "our trust domain only": [
    `${EC} ${CA} -addext nameConstraints=critical,permitted;URI:cluster.local`,
  ],
  "subjects of a company only": [
    // permitted;dirName:O=Corp
    `${EC} ${CA} -addext nameConstraints=critical,DER:3017a0153013a411300f310d300b060355040a0c04436f7270`,
  ],
  "not our trust domain": [
    `${EC} ${CA} -addext nameConstraints=critical,excluded;URI:cluster.local`,
    /excluded subtree/,
  ],
  "the pod's addresses only": [
    `${EC} ${CA} -addext nameConstraints=critical,permitted;IP:10.0.0.0/255.0.0.0`,
  ],
  "no subject key identifier": [
    `${EC} ${CA} -addext subjectKeyIdentifier=none`,
    /Missing Subject Key/,
  ],
  "an empty subject": [
    `-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj / ${CA}`,
    /Issuer name empty/,
  ],
  "signed with SHA-1, which nobody relies on": [`${EC} ${CA} -sha1`],
  "RSA of 3072 bits, signed with PSS": [
    `-newkey rsa:3072 -subj /CN=x ${CA} -sigopt rsa_padding_mode:pss`,
  ],
  "RSA of 4096 bits": [`-newkey rsa:4096 -subj /CN=x ${CA}`],
};

Deno.test("a CA is taken by the signer if, and only if, peers shake hands under it", async (t) => {
  const directory = await Deno.makeTempDir();
  try {
    let number = 0;
    for (const [kind, [args, flaw]] of Object.entries(KINDS)) {
      await t.step(kind, async () => {
        const made = await make(directory, `ca${++number}`, args);
        const expected = flaw ?? /^taken$/;
        match(await verdict(() => readCa(secretOf(made), TRUST_DOMAIN)), expected, "the signer");
        const issued = await issue(made, POD.addresses);
        const roots = issued.credentials.roots;
        const { publicKey } = issued;
        const chain = issued.credentials.chain.map((der) => new Uint8Array(der));
        match(
          await verdict(() =>
            verifyIssued(chain, { pod: POD, publicKey, trustDomain: TRUST_DOMAIN, roots })
          ),
          expected,
          "the agent",
        );
        const good = await issue(await make(directory, "good", `${EC} ${CA}`), POD.addresses);
        const said = [
          handshake("client", issued.credentials, good.credentials),
          handshake("server", issued.credentials, good.credentials),
        ];
        // One that is for servers only is refused to clients only, and no pod is only one of them.
        const worst = said.find((one) => one !== "taken") ?? "taken";
        match(worst, expected, "its peers");
      });
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a CA that is limited to other addresses is found when it signs, not when peers are refused", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const limited = "-addext nameConstraints=critical,permitted;IP:192.168.0.0/255.255.0.0";
    const made = await make(directory, "limited", `${EC} ${CA} ${limited}`);
    await readCa(secretOf(made), TRUST_DOMAIN); // for pods that have such addresses
    const { credentials, publicKey } = await issue(made, POD.addresses);
    const chain = credentials.chain.map((der) => new Uint8Array(der));
    const { roots } = credentials;
    const judged = () =>
      verifyIssued(chain, { pod: POD, publicKey, trustDomain: TRUST_DOMAIN, roots });
    match(await verdict(judged), /permitted subtree/);
    const good = await issue(await make(directory, "good", `${EC} ${CA}`), POD.addresses);
    match(handshake("client", credentials, good.credentials), /permitted subtree/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a certificate that is untimely when it has just been issued means a wrong clock", async () => {
  const directory = await Deno.makeTempDir();
  const { now } = Date;
  const judged = async (made: Made, minutes: number) => {
    Date.now = () => now() + 60_000 * minutes; // the signer's clock
    const { credentials, publicKey } = await issue(made, POD.addresses);
    Date.now = now;
    const chain = credentials.chain.map((der) => new Uint8Array(der));
    const { roots } = credentials;
    return await verdict(() =>
      verifyIssued(chain, { pod: POD, publicKey, trustDomain: TRUST_DOMAIN, roots })
    );
  };
  try {
    const made = await make(directory, "ca", `${EC} ${CA} -days 3`);
    strictEqual(await judged(made, 0), "taken");
    const clocks = "this node's clock, which says 20\\S+Z, or the signer's is wrong$";
    match(await judged(made, -2), new RegExp(`has expired \\(the leaf\\): ${clocks}`));
    match(await judged(made, 2 * 1_440), new RegExp(`not yet valid \\(the leaf\\): ${clocks}`));
    match(await judged(await expired(), 0), /has expired \(its CA\)$/);
  } finally {
    Date.now = now;
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("trust begins at the CA that signs: a sibling under the same root is nobody", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await make(directory, "root", `${EC} ${CA}`);
    const below = (name: string) =>
      make(
        directory,
        name,
        `-newkey ec -pkeyopt ec_paramgen_curve:P-256 ${CA} -subj /CN=${name} ` +
          `-CA ${directory}/root.crt -CAkey ${directory}/root.key`,
      );
    const [ours, sibling] = [await below("ours"), await below("sibling")];
    const good = await issue(ours, POD.addresses);
    const foreign = await issue(sibling, POD.addresses);
    strictEqual(handshake("client", good.credentials, good.credentials), "taken");
    const stranger = {
      ...foreign.credentials,
      chain: [...foreign.credentials.chain, ...foreign.credentials.roots],
    };
    for (const role of ["client", "server"] as const) {
      const said = handshake(
        role,
        { ...stranger, roots: good.credentials.roots },
        good.credentials,
      );
      match(said, /unable to get/, role);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

async function verdict(judge: () => unknown): Promise<string> {
  try {
    await judge();
    return "taken";
  } catch (error) {
    return (error as Error).message;
  }
}

/** What a signer that judges nothing would make with the CA. */
async function issue(
  made: Made,
  addresses: readonly string[],
): Promise<{ credentials: Credentials; publicKey: Uint8Array }> {
  const { csr, publicKey, privateKey } = await newKeyAndRequest();
  const certificate = new x509.X509Certificate(made.certificate);
  const signingKey = createPrivateKey(made.key);
  const algorithm = signingKey.asymmetricKeyType === "rsa"
    ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }
    : { name: "ECDSA", namedCurve: "P-256" };
  const pkcs8 = new Uint8Array(signingKey.export({ type: "pkcs8", format: "der" }));
  const authority = {
    certificate,
    privateKey: await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]),
  };
  const { chain } = await signLeaf(
    x509,
    authority,
    await provenKey(x509, csr),
    { ...POD, addresses },
    { trustDomain: TRUST_DOMAIN, ttlSeconds: 60 },
  );
  const roots = [new Uint8Array(certificate.rawData)];
  return { credentials: { chain, privateKey, roots }, publicKey };
}

/** What the other side says of who plays `role` with these credentials, trusting their root. */
function handshake(role: "client" | "server", shown: Credentials, good: Credentials): string {
  using protocol = new AlpnProtocol("test/1");
  using context = new TlsContext({ ...shown, roots: good.roots }, protocol);
  using judging = new TlsContext({ ...good, roots: shown.roots }, protocol);
  const side = (mine: TlsContext, as: "client" | "server") => {
    const engine = new TlsEngine(protocol);
    return new Side(engine, engine.session(mine, as));
  };
  const [client, server] = role === "client"
    ? [side(context, "client"), side(judging, "server")]
    : [side(judging, "client"), side(context, "server")];
  try {
    shakeHands(client, server);
    return "taken";
  } catch (error) {
    ok(error instanceof Error);
    return error.message;
  } finally {
    for (const { session } of [client, server]) session[Symbol.dispose]();
  }
}
