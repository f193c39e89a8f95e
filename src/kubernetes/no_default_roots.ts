/**
 * Importing this file leaves the process without Deno's default CAs (Mozilla's, and those that
 * these variables name). Deno adds them to those that an HTTP client is given, and whoever has a
 * certificate from one of them could pass for the API server. Deno reads the variables once, for
 * the first client of a process: that client is made here. Plugins' processes find the variables as
 * they were.
 */
const BLANK = { DENO_TLS_CA_STORE: "", DENO_CERT: undefined };

const before = Object.keys(BLANK).map((name) => [name, Deno.env.get(name)] as const);
for (const [name, value] of Object.entries(BLANK)) setVariable(name, value);
try {
  Deno.createHttpClient({}).close();
} finally {
  for (const [name, value] of before) setVariable(name, value);
}

function setVariable(name: string, value: string | undefined): void {
  if (value === undefined) Deno.env.delete(name);
  else Deno.env.set(name, value);
}
