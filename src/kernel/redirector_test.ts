import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmdirSync } from "node:fs";
import { attachedPrograms, mapKeys } from "../../tests/lab/kernel.ts";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { SystemError } from "../native/errno.ts";
import { withMaps } from "./maps_for_tests.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-111111111111";

/** A cgroup without processes. */
async function withCgroup(use: (cgroup: string) => void | Promise<void>): Promise<void> {
  const mount = cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8"));
  const cgroup = mkdtempSync(`${mount}/kgw-test-`);
  try {
    await use(cgroup);
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

Deno.test("a pod whose cgroup was made anew under the old name gets its programs anew", () =>
  withMaps((redirector) =>
    withCgroup(async (cgroup) => {
      redirector.attach(UID, cgroup, false);
      rmdirSync(cgroup);
      mkdirSync(cgroup);
      redirector.attach(UID, cgroup, true);
      assert.deepEqual(await attachedPrograms(cgroup), [
        ...["connect4_strict", "connect6_strict", "getpeername4", "getpeername6", "getsockname4"],
        ...["getsockname6", "note_flow"],
      ]);
    })
  ));

Deno.test("pods are held below the cgroups that are named last", () =>
  withMaps(({ hold }) =>
    withCgroup((first) =>
      withCgroup(async (second) => {
        hold.below([first]);
        hold.below([first, second]); // adopts what is there
        assert.deepEqual(await attachedPrograms(first), ["hold4", "hold6"]);
        assert.deepEqual(await attachedPrograms(second), ["hold4", "hold6"]);
        hold.below([second]);
        assert.deepEqual(await attachedPrograms(first), []);
        assert.deepEqual(await attachedPrograms(second), ["hold4", "hold6"]);
        hold.below([]);
        assert.deepEqual(await attachedPrograms(second), []);
      })
    )
  ));

Deno.test("who was let go is forgotten when the cgroup is gone", () =>
  withMaps((redirector) =>
    withCgroup((one) =>
      withCgroup(async (other) => {
        const { hold, stateDirectory } = redirector;
        hold.letGo(one);
        redirector.attach(UID, other, false);
        assert.equal((await mapKeys(stateDirectory, "decided")).length, 2);
        hold.forgetAllBut([other, `${other}/gone`]);
        assert.equal((await mapKeys(stateDirectory, "decided")).length, 1);
        assert.throws(() => hold.letGo(`${other}/gone`), /ENOENT/);
      })
    )
  ));
