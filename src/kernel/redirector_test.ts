import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, renameSync, rmdirSync } from "node:fs";
import { cgroup2Mount } from "../control/cgroup.ts";
import { SystemError } from "../native/errno.ts";
import { withMaps } from "./maps_for_tests.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-111111111111";

/** A cgroup without processes. */
function withCgroup(use: (cgroup: string) => void): void {
  const mount = cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8"));
  const cgroup = mkdtempSync(`${mount}/kgw-test-`);
  try {
    use(cgroup);
  } finally {
    rmdirSync(cgroup);
  }
}

/** The links that are pinned for the pod. */
function links(stateDirectory: string): string[] {
  return [...Deno.readDirSync(`${stateDirectory}/pods/${UID}`)].map(({ name }) => name).sort();
}

Deno.test("a pod that cannot be attached to has nothing attached", () =>
  withMaps((redirector) => {
    assert.throws(() => redirector.attach(UID, "/tmp", false), SystemError);
    assert.deepEqual(redirector.attached(), []);
  }));

Deno.test("a pod keeps its programs when one of them cannot be replaced", () =>
  withMaps((redirector) =>
    withCgroup((cgroup) => {
      redirector.attach(UID, cgroup, false);
      const before = links(redirector.stateDirectory);
      assert.equal(before.length, 7);

      // A link of another type, whose program the kernel will not replace.
      const pin = (name: string) => `${redirector.stateDirectory}/pods/${UID}/${name}`;
      renameSync(pin("note_flow"), pin("getsockname6"));
      assert.throws(() => redirector.attach(UID, cgroup, true), /bpf_link_update/);
      assert.deepEqual(links(redirector.stateDirectory), before);
    })
  ));

Deno.test("what another version has attached goes when this one's programs are there", () =>
  withMaps((redirector) =>
    withCgroup((cgroup) => {
      redirector.attach(UID, cgroup, false);
      const before = links(redirector.stateDirectory);
      const pin = (name: string) => `${redirector.stateDirectory}/pods/${UID}/${name}`;
      renameSync(pin("note_flow"), pin("note_what_flows"));
      redirector.attach(UID, cgroup, false);
      assert.deepEqual(links(redirector.stateDirectory), before);
    })
  ));
