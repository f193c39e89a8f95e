/**
 * What a peer's leaf certificate says, as parsed from its DER; never from a certificate's text
 * form, where one SAN can be made to look like two.
 */
export interface LeafFacts {
  /** Each URI SAN's bytes, as they stand in the certificate. */
  uriSans: Uint8Array[];
  /** Each IP SAN, 4 or 16 bytes in network byte order. */
  ipSans: Uint8Array[];
  /** The extension subjectDirectoryAttributes, DER; undefined when it is absent. */
  directoryAttributes: Uint8Array | undefined;
  hasBasicConstraints: boolean;
  isCa: boolean;
  /** OpenSSL's `KU_*` bits (openssl/x509v3.h), undefined when the extension is absent. */
  keyUsage: number | undefined;
  keyUsageCritical: boolean;
  /** OpenSSL's `XKU_*` bits (openssl/x509v3.h), undefined when the extension is absent. */
  extendedKeyUsage: number | undefined;
  subjectEmpty: boolean;
  sanCritical: boolean;
}
