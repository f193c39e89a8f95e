/**
 * Layouts that differ between processors. Both supported ones are little-endian with 8-byte
 * pointers, which every struct in this folder relies on.
 */

/**
 * `struct epoll_event` (sys/epoll.h) is packed on x86-64 only: size and offset of `data`, in bytes.
 */
export const EPOLL_EVENT = byArchitecture({
  x86_64: { size: 12, data: 4 },
  aarch64: { size: 16, data: 8 },
});

function byArchitecture<T>(layouts: { x86_64: T; aarch64: T }): T {
  const architecture: string = Deno.build.arch;
  if (architecture === "x86_64" || architecture === "aarch64") return layouts[architecture];
  throw new Error(
    `cannot run on ${architecture}: the layouts of its C structs are unknown to kube-gateway`,
  );
}
