/** Tries to load a shared library. Throws an Error that names it when the system has none. */
export function requireLibrary(file: string): void {
  Deno.dlopen(file, {}).close();
}
