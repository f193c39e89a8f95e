import { libc } from "./libc.ts";

/**
 * Gives the kernel back what C libraries have freed: by itself malloc(3) keeps all but the end of a
 * heap.
 */
export function releaseFreedMemory(): void {
  libc.malloc_trim(0n);
}
