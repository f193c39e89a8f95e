/** PEM (RFC 7468) without a library: the agent reads certificates and bundles with it. */

/**
 * The contents of all blocks of `label` in `text`, in their order. Text between blocks is passed
 * over, as are blocks of other labels.
 *
 * @throws {TypeError} when there are more than `limit` blocks or one holds no base64.
 */
export function decodePem(text: string, label: string, limit = 64): Uint8Array<ArrayBuffer>[] {
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const blocks: Uint8Array<ArrayBuffer>[] = [];
  let at = text.indexOf(begin);
  while (at !== -1) {
    const from = at + begin.length;
    const to = text.indexOf(end, from);
    if (to === -1) throw new TypeError(`Cannot read PEM: a ${label} block has no end`);
    if (blocks.length === limit) {
      throw new TypeError(`Cannot read PEM: more than ${limit} ${label} blocks`);
    }
    try {
      blocks.push(Uint8Array.fromBase64(text.slice(from, to)));
    } catch (cause) {
      throw new TypeError(`Cannot read PEM: a ${label} block is no base64`, { cause });
    }
    at = text.indexOf(begin, to + end.length);
  }
  return blocks;
}

/** The blocks as PEM text, 64 characters a line, ending with a newline. */
export function encodePem(blocks: readonly Uint8Array[], label: string): string {
  return blocks.map((der) => {
    const lines = der.toBase64().match(/.{1,64}/g) ?? [];
    return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
  }).join("");
}
