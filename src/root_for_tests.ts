/**
 * For tests: the options of one that changes kernel maps, cgroups, mounts or namespaces. Other
 * users have it left out, and are told so.
 */
export const ROOT = { ignore: Deno.uid() !== 0 };
