import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { type Issuer, IssuingError } from "../../identity/issuer.ts";
import { newCa } from "../../identity/new_ca.ts";
import { decodePem } from "../../identity/pem.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { flawOf, PodCertificate } from "./pod_certificate.ts";

const HOUR = 3_600_000;
const POD = {
  uid: "u",
  namespace: "shop",
  name: "web",
  serviceAccount: "web",
  addresses: ["10.0.0.1"],
};

/**
 * An issuer whose certificates are good for a day from the clock's time on, and a wall clock that
 * the test turns.
 */
class Clocked implements Disposable {
  readonly #now = Date.now;
  time = Date.UTC(2026, 0, 1);
  issued = 0;
  asked = 0;
  failure: Error | undefined;
  chain: Uint8Array[] = [];
  roots: Uint8Array[] = [];
  readonly shown: string[] = [];
  readonly certificate: PodCertificate;

  constructor() {
    Date.now = () => this.time;
    const issuer: Issuer = {
      issue: () => {
        this.asked++;
        if (this.failure !== undefined) return Promise.reject(this.failure);
        const notBefore = new Date(this.time - 60_000);
        const notAfter = new Date(this.time + 24 * HOUR);
        return Promise.resolve({
          chain: this.chain,
          serial: `${++this.issued}`,
          notBefore,
          notAfter,
        });
      },
      trustBundle: () => Promise.resolve(this.roots),
    };
    this.certificate = new PodCertificate(issuer, POD);
    this.certificate.keepFresh(({ certificate }) => this.shown.push(certificate.serial));
  }

  /** Looks, and waits until what it began is done: a key is made in a worker thread. */
  async look(): Promise<number> {
    const before = this.issued;
    this.certificate.look();
    for (let turn = 0; turn < 50 && this.issued === before; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return this.issued - before;
  }

  /** Looks, and waits until a renewal has failed. */
  async fails(): Promise<void> {
    const before = this.asked;
    this.certificate.look();
    while (this.asked === before) await new Promise((resolve) => setTimeout(resolve, 2));
    await new Promise((resolve) => setTimeout(resolve, 2)); // the rejection is handled
  }

  [Symbol.dispose](): void {
    Date.now = this.#now;
    this.certificate.end();
  }
}

Deno.test("a certificate is good between its dates, by the wall clock", () => {
  const dates = { notBefore: new Date(1_000), notAfter: new Date(2_000) };
  strictEqual(flawOf(dates, 1_000), undefined);
  strictEqual(flawOf(dates, 1_999), undefined);
  match(flawOf(dates, 2_000) ?? "", /has ended at 1970-01-01T00:00:02/);
  match(flawOf(dates, 999) ?? "", /begins at .* is the clock right\?/);
});

Deno.test("it is renewed at half of its life, give or take a tenth", async () => {
  using clocked = new Clocked();
  await clocked.certificate.first();
  clocked.time += 10.7 * HOUR;
  strictEqual(await clocked.look(), 0);
  clocked.time += 2.6 * HOUR;
  strictEqual(await clocked.look(), 1);
  strictEqual(clocked.shown.at(-1), "2");
});

Deno.test("a clock that jumps is noticed at the next look, forth and back", async () => {
  using clocked = new Clocked();
  await clocked.certificate.first();
  clocked.time += 48 * HOUR;
  match(clocked.certificate.flaw ?? "", /has ended/);
  strictEqual(await clocked.look(), 1);
  strictEqual(clocked.certificate.flaw, undefined);
  clocked.time -= 48 * HOUR;
  match(clocked.certificate.flaw ?? "", /begins at/);
  strictEqual(await clocked.look(), 1);
  strictEqual(clocked.certificate.flaw, undefined);
});

Deno.test("one that has ended is not used again, and a signer that fails is not asked at each look", async () => {
  using clocked = new Clocked();
  await clocked.certificate.first();
  clocked.time += 25 * HOUR;
  clocked.failure = new IssuingError("unavailable", "no signer");
  await rejects(clocked.certificate.first(), /no signer/);
  clocked.failure = new Error("away");
  strictEqual(await clocked.look(), 0);
  clocked.failure = undefined;
  strictEqual(await clocked.look(), 0, "too early");
});

Deno.test("a renewal that is refused is told at once, one that nobody answers when it becomes urgent", async () => {
  using clocked = new Clocked();
  await clocked.certificate.first();
  clocked.failure = new IssuingError("unavailable", "no signer");
  clocked.time += 14 * HOUR;
  await clocked.fails();
  strictEqual(clocked.certificate.renewalProblem, undefined);
  clocked.time += 5 * HOUR;
  match(
    clocked.certificate.renewalProblem ?? "",
    /ends at 2026-01-02.* cannot be renewed: no signer/,
  );

  using denied = new Clocked();
  await denied.certificate.first();
  denied.failure = new IssuingError("bad_certificate", "permitted subtree violation");
  denied.time += 14 * HOUR;
  await denied.fails();
  match(denied.certificate.renewalProblem ?? "", /permitted subtree violation/);
  strictEqual(denied.certificate.flaw, undefined, "it is good until it ends");
});

Deno.test("a renewal that has failed under a wrong clock is no problem once the clock is right", async () => {
  using clocked = new Clocked();
  await clocked.certificate.first();
  clocked.time -= 2 * HOUR;
  clocked.failure = new IssuingError("bad_certificate", "not yet valid");
  await clocked.fails();
  match(clocked.certificate.renewalProblem ?? "", /not yet valid/);
  clocked.time += 2 * HOUR;
  deepStrictEqual([clocked.certificate.renewalProblem, clocked.certificate.flaw], [
    undefined,
    undefined,
  ]);
});

Deno.test("one whose CA has left the trust bundle is taken by nobody, and renewed at once", async () => {
  using clocked = new Clocked();
  const [old, next] = [await shopCredentials(["10.0.0.1"], "web"), await otherCa()];
  clocked.chain = [...old.chain];
  clocked.roots = [...old.roots];
  await clocked.certificate.first();
  clocked.certificate.trust([...old.roots, next]);
  strictEqual(clocked.certificate.flaw, undefined);
  strictEqual(await clocked.look(), 0);
  clocked.certificate.trust([next]);
  match(clocked.certificate.flaw ?? "", /CA has left the trust bundle/);
  clocked.roots = [next];
  strictEqual(await clocked.look(), 1, "asked again at once");
  match(clocked.certificate.flaw ?? "", /CA has left/, "what it got is no better");
  clocked.certificate.trust([...old.roots, next]);
  strictEqual(clocked.certificate.flaw, undefined, "the old one is back");
});

/** A root that has signed nothing, DER. */
async function otherCa(): Promise<Uint8Array> {
  const { certificate } = await newCa("cluster.local");
  return decodePem(certificate, "CERTIFICATE", 1)[0] ?? new Uint8Array();
}
