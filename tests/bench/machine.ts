/** What the figures were measured on: kernel, processors, and the versions of what was compared. */
export async function describeMachine(): Promise<string[]> {
  const kernel = Deno.osRelease().split("-")[0] ?? "";
  const versions = await Promise.all([
    version("OpenSSL", "openssl", "version"),
    version("haproxy", "haproxy", "-v"),
    version("nginx", "nginx", "-v"),
    version("stunnel", "stunnel", "-version"),
    version("iperf3", "iperf3", "--version"),
  ]);
  return [`${navigator.hardwareConcurrency} processors`, `Linux ${kernel}`, ...versions];
}

/** The first version number that a program tells. */
async function version(title: string, program: string, option: string): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(program, { args: [option] }).output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return `${title} ${/\d+\.\d+(\.\d+)?/.exec(said)?.[0] ?? "of some version"}`;
}
