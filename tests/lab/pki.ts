import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";

/** A certificate and its key as files, for a program that is to be somebody. */
export interface Credential {
  certificate: string;
  key: string;
}

/** What a certificate is to say; what is not given is as a pod's own has it. */
export interface LeafOptions {
  uris: string[];
  addresses: string[];
  /** Milliseconds from now. */
  from?: number;
  until?: number;
  /** A pod's has no subject, which a CA's must have (RFC 5280 4.1.2.6). */
  isCa?: boolean;
}

/** A certificate authority that signs whatever a test wants, true or not. */
export class Authority {
  /** The lab's own: the one that the agents of `clusterDirectory` use. */
  static async ofCluster(clusterDirectory: string, directory: string): Promise<Authority> {
    const [key, certificate] = await Promise.all([
      Deno.readTextFile(`${clusterDirectory}/ca/ca.key`),
      Deno.readTextFile(`${clusterDirectory}/ca/ca.crt`),
    ]);
    const pkcs8 = x509.PemConverter.decodeFirst(key);
    return new Authority(
      directory,
      new x509.X509Certificate(certificate),
      await crypto.subtle.importKey("pkcs8", pkcs8, ECDSA, true, ["sign"]),
    );
  }

  /** Another one, that calls itself the same. */
  static async impostor(directory: string): Promise<Authority> {
    const keys = await crypto.subtle.generateKey(ECDSA, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      keys,
      name: "CN=kube-gateway CA",
      notBefore: new Date(Date.now() - HOUR),
      notAfter: new Date(Date.now() + HOUR),
      signingAlgorithm: ECDSA,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return new Authority(directory, certificate, keys.privateKey);
  }

  private constructor(
    readonly directory: string,
    readonly certificate: x509.X509Certificate,
    readonly privateKey: CryptoKey,
  ) {}

  /**
   * A leaf under `length` CAs, none of which anybody trusts; with `isOneName` all of them look like
   * each other's issuer.
   */
  static async longChain(
    directory: string,
    length: number,
    isOneName: boolean,
  ): Promise<Credential> {
    let issuer = await Authority.impostor(directory);
    const chain: string[] = [];
    for (let number = 0; number < length; number++) {
      const name = isOneName ? "CN=kube-gateway CA" : `CN=${number}`;
      const keys = await crypto.subtle.generateKey(ECDSA, true, ["sign", "verify"]);
      const certificate = await x509.X509CertificateGenerator.create({
        issuer: issuer.certificate.subjectName,
        subject: name,
        notBefore: new Date(Date.now() - HOUR),
        notAfter: new Date(Date.now() + HOUR),
        publicKey: keys.publicKey,
        signingKey: issuer.privateKey,
        signingAlgorithm: ECDSA,
        extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
      });
      chain.unshift(certificate.toString("pem"));
      issuer = new Authority(directory, certificate, keys.privateKey);
    }
    const leaf = await issuer.issue({ uris: ["spiffe://x/ns/x/sa/x"], addresses: ["10.0.0.1"] });
    const pem = await Deno.readTextFile(leaf.certificate);
    await Deno.writeTextFile(leaf.certificate, [pem, ...chain].join("\n"));
    return leaf;
  }

  /** The CA's own certificate and key, as somebody would use them who has stolen both. */
  async itself(): Promise<Credential> {
    return await this.#write(this.certificate, this.privateKey);
  }

  async issue(
    { uris, addresses, from = -HOUR, until = HOUR, isCa = false }: LeafOptions,
  ): Promise<Credential> {
    const keys = await crypto.subtle.generateKey(ECDSA, true, ["sign", "verify"]);
    const { KeyUsageFlags, ExtendedKeyUsage } = x509;
    const leaf = await x509.X509CertificateGenerator.create({
      issuer: this.certificate.subjectName,
      subject: isCa ? "CN=another CA" : undefined,
      notBefore: new Date(Date.now() + from),
      notAfter: new Date(Date.now() + until),
      publicKey: keys.publicKey,
      signingKey: this.privateKey,
      signingAlgorithm: ECDSA,
      extensions: [
        new x509.BasicConstraintsExtension(isCa, undefined, true),
        new x509.KeyUsagesExtension(
          KeyUsageFlags.digitalSignature | (isCa ? KeyUsageFlags.keyCertSign : 0),
          true,
        ),
        new x509.ExtendedKeyUsageExtension([
          ExtendedKeyUsage.serverAuth,
          ExtendedKeyUsage.clientAuth,
        ]),
        new x509.SubjectAlternativeNameExtension([
          ...uris.map((value) => ({ type: "url" as const, value })),
          ...addresses.map((value) => ({ type: "ip" as const, value })),
        ], true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(this.certificate.publicKey),
      ],
    });
    return await this.#write(leaf, keys.privateKey);
  }

  async #write(certificate: x509.X509Certificate, privateKey: CryptoKey): Promise<Credential> {
    const base = `${this.directory}/${crypto.randomUUID()}`;
    const pkcs8 = await crypto.subtle.exportKey("pkcs8", privateKey);
    await Deno.writeTextFile(`${base}.key`, x509.PemConverter.encode(pkcs8, "PRIVATE KEY"));
    await Deno.writeTextFile(`${base}.crt`, certificate.toString("pem"));
    return { certificate: `${base}.crt`, key: `${base}.key` };
  }
}

const ECDSA = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const HOUR = 3_600_000;
