import { deepStrictEqual, throws } from "node:assert/strict";
import { listed } from "./kernel.ts";

Deno.test("what bpftool complains about beside its list is no part of the list", () => {
  const complaint = '{"error":"failed to find \\"valid\\" kernel BTF {"}';
  deepStrictEqual(listed('[{"name":"a"},{"name":"b"}]'), [{ name: "a" }, { name: "b" }]);
  deepStrictEqual(listed(`${complaint}\n${complaint}[{"name":"a"}]`), [{ name: "a" }]);
  deepStrictEqual(listed(`[${complaint},{"name":"a"}]`), [{ name: "a" }]);
  deepStrictEqual(listed(complaint), []);
  deepStrictEqual(listed("\n"), []);
  throws(() => listed("libbpf: no list"), SyntaxError);
});
