import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { credentials, TRUST_DOMAIN } from "../standalone/credentials_for_tests.ts";
import { identityOfLeaf } from "../identity/verify.ts";
import { libssl } from "./libssl.ts";
import { drainErrors, notNull } from "./openssl_error.ts";
import { shakeHands, Side } from "./memory_handshake_for_tests.ts";
import { ScatterBuffer } from "./scatter.ts";
import { AlpnProtocol, type Credentials, TlsContext } from "./tls_context.ts";
import { INCOMING_SIZE, MAX_RECORD, TlsEngine, TlsError } from "./tls_session.ts";

/**
 * A CA of the test's own, for certificates that no issuer makes: valid from and to, hours from now.
 */
async function datedAuthority(): Promise<(from: number, to: number) => Promise<Credentials>> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const rootKeys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const hours = (count: number) => new Date(Date.now() + count * 3_600_000);
  const { KeyUsageFlags, X509CertificateGenerator } = x509;
  const root = await X509CertificateGenerator.createSelfSigned({
    name: "CN=dated",
    keys: rootKeys,
    notBefore: hours(-1000),
    notAfter: hours(1000),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(rootKeys.publicKey),
    ],
  });
  return async (from, to) => {
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const leaf = await X509CertificateGenerator.create({
      issuer: root.subject,
      notBefore: hours(from),
      notAfter: hours(to),
      publicKey: keys.publicKey,
      signingKey: rootKeys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.SubjectAlternativeNameExtension([{ type: "ip", value: "10.0.0.1" }], true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(root.publicKey),
      ],
    });
    return {
      chain: [new Uint8Array(leaf.rawData)],
      privateKey: new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
      roots: [new Uint8Array(root.rawData)],
    };
  };
}

/** Of a client that goes on whatever was agreed. */
class AnyProtocol extends AlpnProtocol {
  override isAgreed(): boolean {
    return true;
  }
}

Deno.test("TLS sessions that share an engine", async (t) => {
  const [ours, theirs] = [await Deno.makeTempDir(), await Deno.makeTempDir()];
  using protocol = new AlpnProtocol("test/1");
  const engine = new TlsEngine(protocol);
  const good = await credentials(ours);
  using context = new TlsContext(good, protocol);
  const pair = (clientContext = context, serverContext = context, clientEngine = engine) => ({
    client: new Side(clientEngine, clientEngine.session(clientContext, "client")),
    server: new Side(engine, engine.session(serverContext, "server")),
  });
  const free = (...sides: Side[]) => sides.forEach(({ session }) => session[Symbol.dispose]());

  await t.step("know each other after the handshake", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    for (const { session } of [client, server]) {
      using certificate = session.peerCertificate();
      const identity = identityOfLeaf(certificate.leafFacts(), TRUST_DOMAIN);
      assert.equal(identity.id, "spiffe://cluster.local/ns/shop/sa/web");
      assert.deepEqual(identity.addresses, ["10.0.0.1"]);
    }
    free(client, server);
  });

  await t.step("carry records of every size, and many in one read", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    const source = new ScatterBuffer(4 * MAX_RECORD);
    crypto.getRandomValues(source.bytes);
    const sizes = [1, 2, 63, 64, 65, 1000, MAX_RECORD - 1, MAX_RECORD, ...Array(500).fill(3)];
    client.turn(server, () => sizes.forEach((size) => client.session.write(source, 0, size)));
    const target = new ScatterBuffer(204_800);
    const received = server.turn(client, () => {
      const records: number[] = [];
      while (engine.unread > 0) {
        const count = server.session.read(target, 0);
        assert.deepEqual(target.bytes.slice(0, count), source.bytes.slice(0, count));
        records.push(count);
      }
      return records;
    });
    assert.deepEqual(received, sizes);
    free(client, server);
  });

  await t.step("carry a full batch that arrives in pieces", () => {
    const source = new ScatterBuffer(4 * MAX_RECORD);
    crypto.getRandomValues(source.bytes);
    for (const piece of [INCOMING_SIZE, 16_406, 16_405, 1000]) {
      const { client, server } = pair();
      shakeHands(client, server);
      client.turn(server, () => {
        for (let at = 0; at < source.bytes.length; at += MAX_RECORD) {
          client.session.write(source, at, MAX_RECORD);
        }
      });
      const ciphertext = Buffer.concat(client.sent.splice(0));
      assert(ciphertext.length > INCOMING_SIZE, "does not fit one read");
      const target = new ScatterBuffer(4 * MAX_RECORD);
      let received = 0;
      for (let at = 0; at < ciphertext.length; at += piece) {
        client.sent.push(ciphertext.slice(at, at + piece));
        server.turn(client, () => {
          for (let count = -1; count !== 0; received += count) {
            count = engine.unread > 0 ? server.session.read(target, received) : 0;
          }
          assert.equal(engine.unread, 0, "OpenSSL keeps the beginning of a record itself");
        });
      }
      assert.equal(received, source.bytes.length);
      assert(target.bytes.every((byte, index) => byte === source.bytes[index]));
      free(client, server);
    }
  });

  await t.step("never issue a ticket", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    assert.equal(Buffer.concat(server.sent).length, 0, "nothing after the server's Finished");
    free(client, server);
  });

  await t.step("break when a byte was changed", () => {
    const source = new ScatterBuffer(64);
    for (const position of [0, 5, 20, 60]) {
      const { client, server } = pair();
      shakeHands(client, server);
      client.turn(server, () => client.session.write(source, 0, 64));
      const record = Buffer.concat(client.sent.splice(0));
      record[position] = (record[position] ?? 0) ^ 1;
      client.sent.push(record);
      assert.throws(
        () => server.turn(client, () => server.session.read(new ScatterBuffer(MAX_RECORD), 0)),
        TlsError,
        `byte ${position}`,
      );
      assert(Buffer.concat(server.sent).length > 0, "an alert says so");
      free(client, server);
      assert.deepEqual(drainErrors(), []);
    }
  });

  await t.step("refuse bytes that are no TLS", () => {
    const { client, server } = pair();
    client.sent.push(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: pod\r\n\r\n"));
    assert.throws(() => server.turn(client, () => server.session.handshake()), TlsError);
    free(client, server);
    assert.deepEqual(drainErrors(), []);
  });

  await t.step("fifty handshakes, a step of each in turn, do not disturb each other", () => {
    const pairs = Array.from({ length: 50 }, () => ({ ...pair(), done: 0 }));
    for (let turn = 0; turn < 10; turn++) {
      for (const each of pairs.filter(({ done }) => done < 2)) {
        const { client, server } = each;
        each.done = Number(client.turn(server, () => client.session.handshake()));
        each.done += Number(server.turn(client, () => server.session.handshake()));
      }
    }
    assert(pairs.every(({ done }) => done === 2));
    for (const { client, server } of pairs.reverse()) free(server, client);
  });

  await t.step("end with close_notify", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    client.turn(server, () => client.session.close());
    const end = server.turn(client, () => server.session.read(new ScatterBuffer(MAX_RECORD), 0));
    assert.equal(end, -1);
    free(client, server);
  });

  const dated = await datedAuthority();
  const anyProtocol = new AnyProtocol("test/1");
  const laxEngine = new TlsEngine(anyProtocol);

  await t.step("accept a certificate within its dates", async () => {
    using current = new TlsContext(await dated(-1, 1), protocol);
    const { client, server } = pair(current, current);
    shakeHands(client, server);
    free(client, server);
  });

  const refusals: [name: string, make: () => Promise<ReturnType<typeof pair>>, reason: RegExp][] = [
    ["a client of another CA", async () => {
      const other = await credentials(theirs);
      return pair(new TlsContext({ ...other, roots: good.roots }, protocol));
    }, /certificate refused: unable to get local issuer|self.signed/],
    ["a server of another CA", async () => {
      const other = await credentials(theirs);
      return pair(context, new TlsContext({ ...other, roots: good.roots }, protocol));
    }, /certificate refused: unable to get local issuer|self.signed/],
    ["a client without a certificate", () => {
      // Checks nothing and shows nothing.
      const bare = { pointer: notNull(libssl.SSL_CTX_new(libssl.TLS_method()), "SSL_CTX_new", "") };
      libssl.SSL_CTX_set_alpn_protos(bare.pointer, protocol.wire, protocol.wire.length);
      const disposable = { ...bare, [Symbol.dispose]: () => libssl.SSL_CTX_free(bare.pointer) };
      return Promise.resolve(pair(disposable, context, laxEngine));
    }, /peer did not return a certificate/],
    ["a client whose certificate has expired", async () => {
      const [expired, current] = [await dated(-2, -1), await dated(-1, 1)];
      return pair(new TlsContext(expired, protocol), new TlsContext(current, protocol));
    }, /certificate refused: certificate has expired/],
    ["a server whose certificate has expired", async () => {
      const [expired, current] = [await dated(-2, -1), await dated(-1, 1)];
      return pair(new TlsContext(current, protocol), new TlsContext(expired, protocol));
    }, /certificate refused: certificate has expired/],
    ["a client whose certificate is not valid yet", async () => {
      const [early, current] = [await dated(1, 2), await dated(-1, 1)];
      return pair(new TlsContext(early, protocol), new TlsContext(current, protocol));
    }, /certificate refused: certificate is not yet valid/],
    ["a client that speaks TLS 1.2 at most", () => {
      const old = new TlsContext(good, protocol);
      const [setMin, setMax, tls12] = [123, 124, 0x0303n];
      libssl.SSL_CTX_ctrl(old.pointer, setMin, tls12, null);
      libssl.SSL_CTX_ctrl(old.pointer, setMax, tls12, null);
      return Promise.resolve(pair(old));
    }, /unsupported protocol/],
    ["a client that offers no application protocol", () => {
      const silent = new TlsContext(good, protocol);
      libssl.SSL_CTX_set_alpn_protos(silent.pointer, null, 0);
      return Promise.resolve(pair(silent, context, laxEngine));
    }, /no common application protocol/],
    ["a server that answers with no application protocol", () => {
      const silent = new TlsContext(good, protocol);
      libssl.SSL_CTX_set_alpn_select_cb(silent.pointer, null, null);
      return Promise.resolve(pair(context, silent));
    }, /no common application protocol/],
    ["another application protocol", () => {
      const other = new AlpnProtocol("test/2");
      return Promise.resolve(pair(new TlsContext(good, other), context, new TlsEngine(other)));
    }, /application protocol/],
  ];
  for (const [name, make, reason] of refusals) {
    await t.step(`refuse ${name}, and the next session works`, async () => {
      const { client, server } = await make();
      assert.throws(
        () => shakeHands(client, server),
        (error) => error instanceof TlsError && reason.test(error.reason),
      );
      free(client, server);
      assert.deepEqual(drainErrors(), []);
      const next = pair();
      shakeHands(next.client, next.server);
      free(next.client, next.server);
    });
  }

  await t.step("refuse what they have accepted before, once it has expired", async () => {
    using short = new TlsContext(await dated(-1, 2 / 3600), protocol); // two seconds
    const first = pair(short, short);
    shakeHands(first.client, first.server);
    free(first.client, first.server);
    await new Promise((resolve) => setTimeout(resolve, 3_100)); // X.509 counts whole seconds
    const late = pair(short, short);
    assert.throws(
      () => shakeHands(late.client, late.server),
      (error) => error instanceof TlsError && /has expired/.test(error.reason),
    );
    free(late.client, late.server);
  });

  await t.step("trust what the context trusts now, whatever another one has accepted", async () => {
    const other = await credentials(theirs);
    using both = new TlsContext({ ...good, roots: [...good.roots, ...other.roots] }, protocol);
    using stranger = new TlsContext({ ...other, roots: good.roots }, protocol);
    for (let count = 0; count < 2; count++) {
      const accepted = pair(stranger, both);
      shakeHands(accepted.client, accepted.server);
      free(accepted.client, accepted.server);
    }
    const refused = pair(stranger, context);
    assert.throws(() => shakeHands(refused.client, refused.server), TlsError);
    free(refused.client, refused.server);
    assert.deepEqual(drainErrors(), []);
  });

  await t.step("outlive their context in the middle of a handshake", () => {
    const brief = new TlsContext(good, protocol);
    const { client, server } = pair(brief, brief);
    client.turn(server, () => client.session.handshake());
    brief[Symbol.dispose]();
    shakeHands(client, server);
    free(client, server);
  });

  await t.step("are freed: two thousand handshakes leave no memory behind", () => {
    const run = (count: number) => {
      for (let index = 0; index < count; index++) {
        const { client, server } = pair();
        shakeHands(client, server);
        free(client, server);
      }
    };
    run(500);
    const before = Deno.memoryUsage().rss;
    run(2000);
    const grown = (Deno.memoryUsage().rss - before) / 1e6;
    assert(grown < 20, `grew by ${grown} MB`); // one leaked session a handshake would be 100 MB and more
  });
  for (const directory of [ours, theirs]) await Deno.remove(directory, { recursive: true });
});
