/**
 * The FFI tables and constants of this folder against the C headers: clang compiles what they say.
 * A wrong type here is not an exception but a wrong number or a broken stack, so nothing else would
 * notice.
 */
import { deepStrictEqual, match, notStrictEqual, strictEqual } from "node:assert/strict";
import { EPOLL_EVENT } from "./architecture.ts";
import { TCP_STATES, type TcpState } from "./sock_diag.ts";
import { TCP_INFO_FIELDS } from "./socket.ts";

/** A symbol of a `Deno.dlopen` table and the comment lines above it. */
interface Symbol {
  readonly name: string;
  readonly comments: readonly string[];
  readonly parameters: readonly string[];
  readonly result: string;
}

interface Prototype {
  readonly text: string;
  readonly result: string;
  readonly name: string;
  readonly parameters: readonly string[];
}

/** Each table and the headers that declare its symbols. */
const TABLES = {
  "libc.ts": [
    "errno.h",
    "stdlib.h",
    "malloc.h",
    "fcntl.h",
    "unistd.h",
    "sched.h",
    "ifaddrs.h",
    "sys/socket.h",
    "sys/epoll.h",
    "sys/file.h",
    "sys/eventfd.h",
    "sys/mount.h",
    "sys/prctl.h",
    "sys/resource.h",
    "sys/stat.h",
    "sys/vfs.h",
    "time.h",
  ],
  "libssl.ts": ["openssl/ssl.h"],
  "libcrypto.ts": [
    "openssl/crypto.h",
    "openssl/err.h",
    "openssl/bio.h",
    "openssl/x509.h",
    "openssl/x509v3.h",
    "openssl/stack.h",
  ],
  "libbpf.ts": ["bpf/bpf.h", "bpf/libbpf.h"],
} as const;

/** The FFI type of each C type that is not a pointer. */
const FFI_TYPES: Record<string, string> = {
  "void": "void",
  "int": "i32",
  "unsigned int": "u32",
  "uint32_t": "u32",
  "socklen_t": "u32",
  "__u32": "u32",
  "__rlimit_resource_t": "i32",
  "clockid_t": "i32",
  "enum bpf_attach_type": "u32",
  "enum bpf_map_type": "u32",
  "long": "i64",
  "unsigned long": "u64",
  "uint64_t": "u64",
  "__u64": "u64",
  "size_t": "usize",
  "ssize_t": "isize",
  "libbpf_print_fn_t": "function",
  "SSL_CTX_alpn_select_cb_func": "function",
  "SSL_verify_cb": "function",
};

/** Results that are taken as i32 although C's are wider; the tables say why that is no loss. */
const NARROWED = new Set(["recvmsg", "sendmsg", "recv", "send", "BIO_ctrl_pending"]);

for (const [file, headers] of Object.entries(TABLES)) {
  const symbols = symbolsOf(sourceOf(file));

  Deno.test(`${file}: every symbol has its C prototype above it`, () => {
    notStrictEqual(symbols.length, 0);
    for (const symbol of symbols) {
      deepStrictEqual(prototypesOf(symbol).map(({ name }) => name), [symbol.name]);
    }
  });

  Deno.test(`${file}: every prototype is the header's`, async () => {
    const lines = headers.map((header) => `#include <${header}>`);
    for (const { text, name } of symbols.flatMap(prototypesOf)) {
      // The first line fails for a name that no header declares, the second for another type.
      lines.push(`__typeof__(&(${name})) declared_${lines.length};`, text);
    }
    await compile(lines);
  });

  Deno.test(`${file}: every FFI type is the prototype's`, () => {
    for (const symbol of symbols) {
      for (const prototype of prototypesOf(symbol)) {
        const named = prototype.parameters.length;
        const isVariadic = prototype.text.endsWith(", ...);");
        const given = symbol.parameters.length;
        strictEqual(isVariadic ? given >= named : given === named, true, prototype.text);
        for (const [index, parameter] of prototype.parameters.entries()) {
          const ffi = symbol.parameters[index];
          const about = `parameter ${index} of ${prototype.text}`;
          if (parameter.includes("(*")) strictEqual(ffi, "function", about);
          else if (parameter.includes("*")) match(ffi ?? "", /^(pointer|buffer)$/, about);
          else strictEqual(ffi, FFI_TYPES[parameter], about);
        }
        // A function pointer that C hands out is a pointer here: nothing calls it.
        const type = FFI_TYPES[prototype.result];
        const wanted = prototype.result.includes("*") || type === "function" ? "pointer" : type;
        if (NARROWED.has(symbol.name)) {
          match(wanted ?? "", /^[iu]size$/, `${symbol.name} needs no exception`);
          strictEqual(symbol.result, "i32", prototype.text);
        } else {
          strictEqual(symbol.result, wanted, `result of ${prototype.text}`);
        }
      }
    }
  });
}

Deno.test("a prototype that differs from the header does not compile", async () => {
  for (
    const [declared, wrong] of [
      ["close", "int close(long fd);"],
      ["close", "long close(int fd);"],
      ["send", "ssize_t send(int fd, void *buf, size_t len, int flags);"],
      ["no_such_call", "int no_such_call(int fd);"],
    ] as const
  ) {
    const { success, stderr } = await clang([
      "#include <unistd.h>",
      "#include <sys/socket.h>",
      `__typeof__(&(${declared})) used;`,
      wrong,
    ]);
    strictEqual(success, false, wrong);
    match(stderr, /conflicting types|undeclared identifier/, wrong);
  }
});

/**
 * Constants whose name is ours, and C's word for the same number; undefined for what C has no word
 * for. Every other constant bears its C name.
 */
const OUR_NAMES: Record<string, string | undefined> = {
  GRAIN: undefined,
  MAX_LEAVES: undefined,
  MAX_PROGRAMS: undefined,
  TC_MESSAGE_SIZE: "sizeof(struct tcmsg)",
  ADDRESS_MESSAGE_SIZE: "sizeof(struct ifaddrmsg)",
  LINK_MESSAGE_SIZE: "sizeof(struct ifinfomsg)",
  CLSACT_HANDLE: "TC_H_MAKE(TC_H_CLSACT, 0)",
  CLSACT_INGRESS: "TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)",
  CLSACT_EGRESS: "TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)",
  LOOPBACK_INDEX: undefined,
  ALL_PROTOCOLS: "__builtin_bswap16(ETH_P_ALL)",
  NLA_TYPE_MASK: "NLA_TYPE_MASK & 0xffff",
  PATIENCE_SECONDS: undefined,
  BUFFER_SIZE: undefined,
  HEADER_SIZE: "sizeof(struct nlmsghdr)",
  ATTRIBUTE_HEADER_SIZE: "sizeof(struct nlattr)",
  SOCKET_ID_SIZE: "sizeof(struct inet_diag_sockid)",
  MESSAGE_SIZE: "sizeof(struct inet_diag_msg)",
  REQUEST_ID: "offsetof(struct inet_diag_req_v2, id)",
  MESSAGE_ID: "offsetof(struct inet_diag_msg, id)",
  MAX_SECONDS: undefined,
  BATCH: undefined,
  MANY: undefined,
  FEW: undefined,
  INCOMING_SIZE: undefined,
  SMALL_INCOMING_SIZE: undefined,
  OUTGOING_SIZE: undefined,
  MAX_RANGES: "UIO_MAXIOV",
  MAX_RECORD: "SSL3_RT_MAX_PLAIN_LENGTH",
  NID_KEY_USAGE: "NID_key_usage",
  NID_SUBJECT_ALT_NAME: "NID_subject_alt_name",
  NID_DIRECTORY_ATTRIBUTES: "NID_subject_directory_attributes",
  SOCKADDR_SIZE: "sizeof(struct sockaddr_in6)",
};

Deno.test("every constant has the value that its C name has", async () => {
  const lines = [
    "fcntl.h",
    "sched.h",
    "stddef.h",
    "linux/bpf.h",
    "linux/if_addr.h",
    "linux/if_ether.h",
    "linux/inet_diag.h",
    "linux/magic.h",
    "linux/netlink.h",
    "linux/nsfs.h",
    "linux/pkt_cls.h",
    "linux/pkt_sched.h",
    "linux/rtnetlink.h",
    "linux/sock_diag.h",
    "netinet/in.h",
    "netinet/tcp.h",
    "sys/epoll.h",
    "sys/eventfd.h",
    "sys/file.h",
    "sys/mount.h",
    "sys/prctl.h",
    "sys/resource.h",
    "sys/stat.h",
    "sys/socket.h",
    "sys/uio.h",
    "openssl/bio.h",
    "openssl/evp.h",
    "openssl/obj_mac.h",
    "openssl/ssl.h",
    "openssl/x509_vfy.h",
    "openssl/x509v3.h",
  ].map((header) => `#include <${header}>`);
  const known = new Set<string>();
  for (const file of productionFiles()) {
    for (const { name, value } of constantsOf(sourceOf(file))) {
      known.add(name);
      const inC = name in OUR_NAMES ? OUR_NAMES[name] : name;
      if (inC !== undefined) {
        lines.push(`_Static_assert((${inC}) == (${value}), "${file}: ${name}");`);
      }
    }
  }
  deepStrictEqual(Object.keys(OUR_NAMES).filter((name) => !known.has(name)), []);
  strictEqual(
    known.has("EPOLLET") && known.has("SSL_OP_NO_TICKET") && known.has("O_DIRECTORY"),
    true,
  );
  await compile(lines);
});

Deno.test("the states of a TCP socket have C's numbers", async () => {
  const inC: Record<TcpState, string> = {
    established: "ESTABLISHED",
    synSent: "SYN_SENT",
    synReceived: "SYN_RECV",
    finWait1: "FIN_WAIT1",
    finWait2: "FIN_WAIT2",
    timeWait: "TIME_WAIT",
    closed: "CLOSE",
    closeWait: "CLOSE_WAIT",
    lastAck: "LAST_ACK",
    listening: "LISTEN",
    closing: "CLOSING",
  };
  await compile([
    "#include <netinet/tcp.h>",
    ...Object.entries(inC).map(([name, c]) =>
      `_Static_assert(TCP_${c} == ${TCP_STATES[name as TcpState]}, "${name}");`
    ),
  ]);
});

/** Sizes and offsets that this folder reads and writes by number. */
const LAYOUTS: Record<string, { size?: number; fields: Record<string, number> }> = {
  "struct bpf_map_info": {
    fields: { type: 0, id: 4, key_size: 8, value_size: 12, max_entries: 16, map_flags: 20 },
  },
  "struct bpf_prog_info": { fields: { type: 0, id: 4 } },
  "struct bpf_link_info": {
    fields: {
      type: 0,
      id: 4,
      prog_id: 8,
      "cgroup.cgroup_id": 16,
      "cgroup.attach_type": 24,
      "netns.netns_ino": 16,
      "netns.attach_type": 20,
    },
  },
  "struct inet_diag_req_v2": {
    size: 56,
    fields: { sdiag_family: 0, sdiag_protocol: 1, idiag_states: 4, id: 8 },
  },
  "struct inet_diag_msg": {
    size: 72,
    fields: { idiag_family: 0, idiag_state: 1, id: 4, idiag_uid: 64, idiag_inode: 68 },
  },
  "struct inet_diag_sockid": {
    size: 48,
    fields: { idiag_sport: 0, idiag_dport: 2, idiag_src: 4, idiag_dst: 20, idiag_cookie: 40 },
  },
  "struct nlmsghdr": {
    size: 16,
    fields: { nlmsg_len: 0, nlmsg_type: 4, nlmsg_flags: 6, nlmsg_seq: 8 },
  },
  "struct tcmsg": {
    size: 20,
    fields: { tcm_family: 0, tcm_ifindex: 4, tcm_handle: 8, tcm_parent: 12, tcm_info: 16 },
  },
  "struct ifaddrmsg": { size: 8, fields: { ifa_family: 0, ifa_index: 4 } },
  "struct nlattr": { size: 4, fields: { nla_len: 0, nla_type: 2 } },
  "struct sockaddr_nl": { size: 12, fields: { nl_family: 0, nl_pid: 4, nl_groups: 8 } },
  "struct epoll_event": { size: EPOLL_EVENT.size, fields: { events: 0, data: EPOLL_EVENT.data } },
  "struct tcp_info": {
    fields: {
      tcpi_retransmits: TCP_INFO_FIELDS.retransmits,
      tcpi_probes: TCP_INFO_FIELDS.probes,
      tcpi_unacked: TCP_INFO_FIELDS.unacked,
      tcpi_last_ack_recv: TCP_INFO_FIELDS.lastAckReceived,
      tcpi_notsent_bytes: TCP_INFO_FIELDS.notSent,
      tcpi_min_rtt: TCP_INFO_FIELDS.size,
    },
  },
  "struct sockaddr_in": { size: 16, fields: { sin_family: 0, sin_port: 2, sin_addr: 4 } },
  "struct sockaddr_in6": {
    size: 28,
    fields: { sin6_family: 0, sin6_port: 2, sin6_flowinfo: 4, sin6_addr: 8, sin6_scope_id: 24 },
  },
  "struct msghdr": { size: 56, fields: { msg_iov: 16, msg_iovlen: 24 } },
  "struct iovec": { size: 16, fields: { iov_base: 0, iov_len: 8 } },
  "struct ifaddrs": { fields: { ifa_next: 0, ifa_name: 8, ifa_flags: 16, ifa_addr: 24 } },
  "struct linger": { size: 8, fields: { l_onoff: 0, l_linger: 4 } },
  "struct buf_mem_st": { size: 32, fields: { length: 0, data: 8, max: 16, flags: 24 } },
  "struct statfs": { size: 120, fields: { f_type: 0 } },
};

Deno.test("every struct lies in memory as this folder takes it to", async () => {
  const lines = [
    "stddef.h",
    "ifaddrs.h",
    "linux/bpf.h",
    "linux/if_addr.h",
    "linux/inet_diag.h",
    "linux/netlink.h",
    "linux/rtnetlink.h",
    "linux/tcp.h",
    "netinet/in.h",
    "sys/epoll.h",
    "sys/socket.h",
    "sys/uio.h",
    "sys/vfs.h",
    "openssl/buffer.h",
  ].map((header) => `#include <${header}>`);
  for (const [struct, { size, fields }] of Object.entries(LAYOUTS)) {
    if (size !== undefined) {
      lines.push(`_Static_assert(sizeof(${struct}) == ${size}, "${struct}");`);
    }
    for (const [field, offset] of Object.entries(fields)) {
      lines.push(
        `_Static_assert(offsetof(${struct}, ${field}) == ${offset}, "${struct}.${field}");`,
      );
    }
  }
  await compile(lines);
});

Deno.test("the verify callback takes what OpenSSL passes", async () => {
  const source = sourceOf("chain_verifier.ts");
  match(source, /\{ parameters: \["pointer", "pointer"\], result: "i32" \} as const/);
  await compile([
    "#include <openssl/ssl.h>",
    "int verify(X509_STORE_CTX *store, void *argument);",
    "void use(SSL_CTX *c) { SSL_CTX_set_cert_verify_callback(c, verify, NULL); }",
  ]);
});

Deno.test("the ALPN callback takes what OpenSSL passes", async () => {
  const [, parameters, result] =
    /const SELECT = \{\s*parameters: (\[[^\]]*\]),\s*result: "(\w+)",/.exec(
      sourceOf("tls_context.ts"),
    ) ?? [];
  const c: Record<string, string> = { u32: "unsigned int", i32: "int" };
  const pointers = ["SSL *", "const unsigned char **", "unsigned char *", "const unsigned char *"];
  const types = strings(parameters ?? "").map((ffi) =>
    ffi === "pointer" ? pointers.shift() ?? "void *" : c[ffi]
  );
  strictEqual(types.length, 6);
  await compile([
    "#include <openssl/ssl.h>",
    `${c[result ?? ""]} select_protocol(${types.join(", ")});`,
    "SSL_CTX_alpn_select_cb_func checked = select_protocol;",
  ]);
});

function sourceOf(file: string): string {
  return Deno.readTextFileSync(new URL(file, import.meta.url));
}

function productionFiles(): string[] {
  return [...Deno.readDirSync(new URL(".", import.meta.url))]
    .map(({ name }) => name)
    .filter((name) => name.endsWith(".ts") && !name.endsWith("_test.ts"));
}

function symbolsOf(source: string): Symbol[] {
  const table = /Deno\.dlopen\("[^"]+", \{\n(.*?)\n\}\);/s.exec(source)?.[1] ?? "";
  const entry = /((?:^ *\/\/.*\n)*)^ *(\w+): \{([^{}]*)\},?$/gm;
  const symbols = [...table.matchAll(entry)].map((
    [, comments = "", key = "", definition = ""],
  ) => ({
    name: /\bname: "(\w+)"/.exec(definition)?.[1] ?? key,
    // A prototype may go on in the next line, indented.
    comments: comments.replaceAll(/\n *\/\/ {2,}/g, " ").split("\n")
      .map((line) => line.replace(/^ *\/\/ ?/, "")),
    parameters: strings(/parameters: \[([^\]]*)\]/.exec(definition)?.[1] ?? "none"),
    result: /result: "(\w+)"/.exec(definition)?.[1] ?? "none",
  }));
  strictEqual(
    symbols.length,
    table.split(' result: "').length - 1,
    "symbols that were not understood",
  );
  return symbols;
}

function strings(list: string): string[] {
  return [...list.matchAll(/"(\w+)"/g)].map(([, text = ""]) => text);
}

/** The prototypes among the comments; there must be one. */
function prototypesOf({ comments }: Symbol): Prototype[] {
  return comments.flatMap((text) => {
    const found = /^([\w ]+?[ *]+)(\w+)\((.*)\);$/.exec(text);
    if (found === null) return [];
    const [, result = "", name = "", list = ""] = found;
    // Not at the commas of a function pointer's own parameters.
    const parameters = list.split(/,(?![^(]*\))/).map((parameter) => parameter.trim())
      .filter((parameter) => parameter !== "void" && parameter !== "...")
      .map((parameter) => parameter.includes("*") ? parameter : parameter.replace(/ \w+$/, ""));
    return [{ text, result: result.trim(), name, parameters }];
  });
}

/** Numeric constants, their values as C writes them. */
function constantsOf(source: string): { name: string; value: string }[] {
  return [...source.matchAll(/^(?:export )?const ([A-Z][A-Z0-9_]*) =\s([^;]*);/gm)]
    .map(([, name = "", value = ""]) => ({
      name,
      value: value
        .replace(/Deno\.build\.arch === "aarch64"/, String(Number(Deno.build.arch === "aarch64")))
        .replaceAll("_", "")
        .replaceAll(/\b0o/g, "0")
        .replaceAll(/\b(0x[0-9a-f]+|[0-9]+)n\b/gi, "$1"),
    }))
    .filter(({ value }) => /^[0-9a-fx\s|<?:]+$/i.test(value));
}

async function compile(lines: readonly string[]): Promise<void> {
  const { success, stderr } = await clang(lines);
  strictEqual(success, true, stderr);
}

async function clang(lines: readonly string[]): Promise<{ success: boolean; stderr: string }> {
  const child = new Deno.Command("clang", {
    args: [
      "-fsyntax-only",
      "-std=gnu17",
      "-D_GNU_SOURCE",
      "-Werror",
      "-Wno-deprecated-declarations",
      "-xc",
      "-",
    ],
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(lines.join("\n") + "\n"));
  await writer.close();
  const { success, stderr } = await child.output();
  return { success, stderr: new TextDecoder().decode(stderr) };
}
