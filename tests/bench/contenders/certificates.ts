/** Files in PEM: what the proxies show and trust. All P-256, as the gateway's. */
export interface Certificates {
  readonly chain: string;
  readonly key: string;
  /** Chain and key, for haproxy. */
  readonly both: string;
  readonly ca: string;
}

/** A CA, and a certificate for the name "pod" that both sides show. */
export async function writeCertificates(directory: string): Promise<Certificates> {
  const script = `
    cd ${directory}
    new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl req -x509 $new -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
    openssl req $new -keyout pod.key -out pod.csr -subj /CN=pod
    echo "subjectAltName = DNS:pod" |
      openssl x509 -req -in pod.csr -CA ca.crt -CAkey ca.key -days 2 -out pod.crt -extfile /dev/stdin
    cat pod.crt pod.key > pod.pem`;
  const { success, stderr } = await new Deno.Command("sh", { args: ["-ec", script] }).output();
  if (!success) throw new Error(`openssl: ${new TextDecoder().decode(stderr)}`);
  const file = (name: string) => `${directory}/${name}`;
  return {
    chain: file("pod.crt"),
    key: file("pod.key"),
    both: file("pod.pem"),
    ca: file("ca.crt"),
  };
}
