import { strictEqual } from "node:assert/strict";
import { kernelOf } from "./runtime_class.ts";

Deno.test("whose kernel a pod runs on is said by its RuntimeClass' handler", () => {
  const handlers = new Map([
    ["gvisor", "runsc"],
    ["kata", "kata-qemu"],
    ["gpu", "nvidia-cdi"],
    ["fast", "crun"],
    ["usual", "runc"],
    ["micro", "firecracker"],
    ["odd", "runcx"],
  ]);
  for (
    const [name, kernel] of [
      [undefined, "shared"],
      ["usual", "shared"],
      ["fast", "shared"],
      ["gpu", "shared"],
      ["gvisor", "guest"],
      ["kata", "guest"],
      ["micro", "unknown"],
      ["odd", "unknown"],
      ["missing", "unknown"],
    ] as const
  ) strictEqual(kernelOf(name, handlers, []), kernel, String(name));
  strictEqual(kernelOf("micro", handlers, ["fire*"]), "guest");
  strictEqual(kernelOf("usual", handlers, ["runc"]), "guest", "the administrator knows better");
});
