import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { attachedPrograms, mapKeys } from "../../tests/lab/kernel.ts";
import { SystemError } from "../native/errno.ts";
import { cgroupId } from "../native/file_system.ts";
import { libc } from "../native/libc.ts";
import type { NetworkNamespace } from "../native/namespace.ts";
import type { Fault } from "./fault.ts";
import { OBJECT, withMaps } from "./maps_for_tests.ts";
import { run, withCgroup, withNamespaces } from "./places_for_tests.ts";
import { Redirector } from "./redirector.ts";
import { ROOT } from "../root_for_tests.ts";

const RLIMIT_NOFILE = 7; // sys/resource.h
const UID = "0c5f3b1e-6d5e-4c64-9d3a-111111111111";

function kinds(faults: readonly Fault[]): string[] {
  return faults.map(({ kind }) => kind);
}

const bpftool = (...args: string[]) => run("bpftool", ...args);

/** The links that are pinned for the pod. */
function links(stateDirectory: string): string[] {
  return [...Deno.readDirSync(`${stateDirectory}/pods/${UID}`)].map(({ name }) => name).sort();
}

Deno.test(
  "a pod that cannot be attached to has nothing attached",
  ROOT,
  () =>
    withMaps((redirector) => {
      assert.throws(() => redirector.attach(UID, "/tmp", false), SystemError);
      assert.deepEqual(redirector.attached(), []);
    }),
);

Deno.test(
  "a pod keeps its programs when it cannot be attached to another place",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, false);
        const before = links(redirector.stateDirectory);
        const programs = await attachedPrograms(cgroup);
        assert.equal(before.length, programs.length);

        assert.throws(() => redirector.attach(UID, "/tmp", true), /bpf_link_create/);
        assert.deepEqual(links(redirector.stateDirectory), before);
        assert.deepEqual(await attachedPrograms(cgroup), programs);
      })
    ),
);

Deno.test(
  "pins that are removed, or another's, detach nothing, are noticed and are mended",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, false);
        assert.deepEqual(redirector.inspect(UID, cgroup, false), []);
        const directory = `${redirector.stateDirectory}/pods/${UID}`;
        const pins = links(redirector.stateDirectory);
        const programs = await attachedPrograms(cgroup);

        rmSync(directory, { recursive: true });
        assert.deepEqual(await attachedPrograms(cgroup), programs);
        assert.deepEqual(
          redirector.inspect(UID, cgroup, false).map(({ kind, what }) => `${kind}: ${what}`).sort(),
          pins.map((name) => `pin: ${directory}/${name} is missing or something else`),
        );
        assert.deepEqual(
          kinds(redirector.inspect(UID, cgroup, false, false)),
          pins.map(() => "pin"),
          "at a glance, too",
        );
        redirector.attach(UID, cgroup, false);
        for (const isThorough of [true, false]) {
          assert.deepEqual(redirector.inspect(UID, cgroup, false, isThorough), []);
        }
        assert.deepEqual(links(redirector.stateDirectory), pins);
        assert.deepEqual(await attachedPrograms(cgroup), programs, "nothing is attached twice");

        // A map, another of our links, and a name that no version of ours has.
        rmSync(`${directory}/connect4`);
        await bpftool(
          "map",
          "pin",
          "pinned",
          `${redirector.stateDirectory}/maps/peers`,
          `${directory}/connect4`,
        );
        rmSync(`${directory}/connect6`);
        renameSync(`${directory}/note_flow`, `${directory}/connect6`);
        await bpftool(
          "map",
          "pin",
          "pinned",
          `${redirector.stateDirectory}/maps/peers`,
          `${directory}/stranger`,
        );
        assert.deepEqual(kinds(redirector.inspect(UID, cgroup, false)), ["pin", "pin", "pin"]);
        redirector.attach(UID, cgroup, false);
        assert.deepEqual(redirector.inspect(UID, cgroup, false), []);
        assert.deepEqual(await attachedPrograms(cgroup), programs);
      })
    ),
);

Deno.test(
  "what notes where a connection goes is attached before what redirects it",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, false);
        const idOf = async (name: string) => {
          const path = `${redirector.stateDirectory}/pods/${UID}/${name}`;
          // The kernel numbers links in the order in which they are made.
          return parseInt(await bpftool("link", "show", "pinned", path));
        };
        const noted = await Promise.all(["note_flow", "getpeername4", "getsockname6"].map(idOf));
        const redirected = await Promise.all(["connect4", "connect6"].map(idOf));
        assert.ok(Math.max(...noted) < Math.min(...redirected), `${noted} ${redirected}`);
      })
    ),
);

Deno.test(
  "a link that somebody detaches is noticed and is attached again",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, true);
        const programs = await attachedPrograms(cgroup);
        await bpftool(
          "link",
          "detach",
          "pinned",
          `${redirector.stateDirectory}/pods/${UID}/connect6`,
        );
        for (const isThorough of [true, false]) {
          assert.deepEqual(redirector.inspect(UID, cgroup, true, isThorough), [
            { kind: "link", what: `connect6_strict is not attached to ${cgroup}` },
          ]);
        }
        redirector.attach(UID, cgroup, true);
        assert.deepEqual(redirector.inspect(UID, cgroup, true), []);
        assert.deepEqual(await attachedPrograms(cgroup), programs);
      })
    ),
);

Deno.test(
  "the programs of the other kind of egress are not the wanted ones",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) => {
        redirector.attach(UID, cgroup, false);
        for (const isThorough of [true, false]) {
          const faults = redirector.inspect(UID, cgroup, true, isThorough);
          assert.deepEqual(faults.map(({ what }) => what), [
            `connect4_strict is not attached to ${cgroup}`,
            `connect6_strict is not attached to ${cgroup}`,
            `guard_strict is not attached to ${cgroup}`,
          ]);
        }
      })
    ),
);

Deno.test(
  "a cgroup that was made anew under the old name is seen to have nothing attached",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) => {
        redirector.attach(UID, cgroup, false);
        rmdirSync(cgroup);
        assert.throws(() => redirector.inspect(UID, cgroup, false), /ENOENT/);
        mkdirSync(cgroup);
        for (const isThorough of [true, false]) {
          const faults = redirector.inspect(UID, cgroup, false, isThorough);
          assert.equal(
            faults.filter(({ kind }) => kind === "link").length,
            links(redirector.stateDirectory).length,
          );
        }
        redirector.attach(UID, cgroup, false);
        assert.deepEqual(redirector.inspect(UID, cgroup, false), []);
      })
    ),
);

Deno.test(
  "detaching detaches, also what another process holds open",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, false);
        // Takes hold of everything that is pinned, as an agent that starts does.
        using other = new Redirector(OBJECT, redirector.stateDirectory);
        assert.deepEqual(other.attached(), [UID]);
        redirector.detach(UID);
        assert.deepEqual(await attachedPrograms(cgroup), []);
        assert.deepEqual(redirector.attached(), []);
        assert.equal(
          other.inspect(UID, cgroup, false).some(({ kind }) => kind === "link"),
          true,
          "the other sees it",
        );
      })
    ),
);

Deno.test(
  "what is pinned outlives the agent, and what was held by the next one, its pins",
  ROOT,
  () =>
    withMaps(({ stateDirectory }) =>
      withCgroup(async (cgroup) => {
        const first = new Redirector(OBJECT, stateDirectory);
        first.attach(UID, cgroup, false);
        const programs = await attachedPrograms(cgroup);
        first[Symbol.dispose]();
        assert.deepEqual(await attachedPrograms(cgroup), programs);
        using second = new Redirector(OBJECT, stateDirectory);
        rmSync(`${stateDirectory}/pods/${UID}`, { recursive: true });
        assert.deepEqual(await attachedPrograms(cgroup), programs);
        second.attach(UID, cgroup, false);
        assert.deepEqual(second.inspect(UID, cgroup, false), []);
        assert.deepEqual(await attachedPrograms(cgroup), programs);
      })
    ),
);

Deno.test(
  "what an agent attaches while the next one stands by, that one takes over",
  ROOT,
  () =>
    withMaps((first) =>
      withCgroup(async (cgroup) => {
        first.attach(UID, cgroup, false);
        using next = new Redirector(OBJECT, first.stateDirectory);
        rmdirSync(cgroup);
        mkdirSync(cgroup);
        first.attach(UID, cgroup, false);
        const programs = await attachedPrograms(cgroup);
        next.attach(UID, cgroup, false);
        assert.deepEqual(await attachedPrograms(cgroup), programs, "nothing is attached twice");
        assert.deepEqual(next.inspect(UID, cgroup, false), []);
      })
    ),
);

Deno.test(
  "strict inbound is seen to be gone, or in another namespace, and is put back",
  ROOT,
  () =>
    withMaps((redirector) =>
      withNamespaces(async ({ namespace: one }, { namespace: other }) => {
        const pin = `${redirector.stateDirectory}/pods/${UID}/strict_inbound`;
        const inspect = (namespace: NetworkNamespace, strict = true) =>
          kinds(redirector.inspectStrictInbound(UID, namespace.descriptor, strict));
        const set = (namespace: NetworkNamespace, strict = true) =>
          redirector.setStrictInbound(UID, namespace.descriptor, strict);

        assert.deepEqual(inspect(one), ["strict_inbound"]);
        assert.deepEqual(inspect(one, false), []);
        set(one);
        assert.deepEqual(inspect(one), []);
        assert.deepEqual(inspect(one, false), ["strict_inbound"]);
        assert.deepEqual(inspect(other), ["strict_inbound"]);

        rmSync(pin);
        assert.deepEqual(inspect(one), ["pin"]);
        set(one);
        assert.deepEqual(inspect(one), []);
        await bpftool("link", "detach", "pinned", pin);
        assert.deepEqual(inspect(one), ["strict_inbound"]);
        set(one);
        assert.deepEqual(inspect(one), []);

        set(other); // a new sandbox
        assert.deepEqual(inspect(other), []);
        assert.deepEqual(inspect(one), ["strict_inbound"]);
        set(other, false);
        assert.deepEqual(inspect(other), ["strict_inbound"]);
        assert.deepEqual(inspect(other, false), []);
        assert.equal(existsSync(pin), false);
      })
    ),
);

Deno.test(
  "descriptors are given back when pods and cgroups go",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) => {
        const open = () => readdirSync("/proc/self/fd").length;
        redirector.attach(UID, cgroup, false);
        redirector.hold.below([cgroup]);
        redirector.detach(UID);
        redirector.hold.below([]);
        const before = open();
        for (let round = 0; round < 20; round++) {
          redirector.hold.below([cgroup]);
          redirector.attach(UID, cgroup, round % 2 === 0);
          redirector.attach(UID, cgroup, round % 3 === 0);
          redirector.inspect(UID, cgroup, false);
          redirector.hold.inspect([cgroup]);
          redirector.detach(UID);
          redirector.hold.below([]);
        }
        assert.equal(open(), before);
      })
    ),
);

Deno.test(
  "maps whose pins are removed, or another's, are noticed and are pinned again",
  ROOT,
  () =>
    withMaps(async (redirector) => {
      const pins = `${redirector.stateDirectory}/maps`;
      const names = readdirSync(pins).sort();
      assert.deepEqual(redirector.inspectMaps(), []);
      rmSync(`${pins}/peers`);
      await bpftool("map", "pin", "pinned", `${pins}/pods`, `${pins}/peers`);
      assert.deepEqual(redirector.inspectMaps(), [
        { kind: "pin", what: `${pins}/peers is missing or something else` },
      ]);
      rmSync(pins, { recursive: true });
      assert.equal(redirector.inspectMaps().length, names.length);
      redirector.pinMaps();
      assert.deepEqual(redirector.inspectMaps(), []);
      assert.deepEqual(readdirSync(pins).sort(), names);
    }),
);

Deno.test(
  "who has no descriptor left does not say that pins are missing",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) => {
        redirector.attach(UID, cgroup, false);
        const limit = new BigUint64Array(2); // struct rlimit: soft and hard
        const bytes = new Uint8Array(limit.buffer);
        libc.getrlimit(RLIMIT_NOFILE, bytes);
        const [before = 0n] = limit;
        limit[0] = 3n;
        libc.setrlimit(RLIMIT_NOFILE, bytes);
        try {
          assert.throws(() => redirector.inspectMaps(), /bpf_obj_get failed with EMFILE/);
          assert.throws(() => redirector.inspect(UID, cgroup, false), /EMFILE/);
          assert.throws(() => redirector.inspect(UID, cgroup, false, false), /EMFILE/);
        } finally {
          limit[0] = before;
          libc.setrlimit(RLIMIT_NOFILE, bytes);
        }
        assert.deepEqual(redirector.inspectMaps(), []);
        assert.deepEqual(redirector.inspect(UID, cgroup, false), []);
      })
    ),
);

Deno.test(
  "what another version has attached goes when this one's programs are there",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) => {
        redirector.attach(UID, cgroup, false);
        const before = links(redirector.stateDirectory);
        const pin = (name: string) => `${redirector.stateDirectory}/pods/${UID}/${name}`;
        renameSync(pin("note_flow"), pin("note_what_flows"));
        redirector.attach(UID, cgroup, false);
        assert.deepEqual(links(redirector.stateDirectory), before);
      })
    ),
);

Deno.test(
  "a pod whose cgroup was made anew under the old name gets its programs anew",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup(async (cgroup) => {
        redirector.attach(UID, cgroup, false);
        rmdirSync(cgroup);
        mkdirSync(cgroup);
        redirector.attach(UID, cgroup, true);
        assert.deepEqual(await attachedPrograms(cgroup), [
          ...["connect4_strict", "connect6_strict", "getpeername4", "getpeername6", "getsockname4"],
          ...["getsockname6", "guard_strict", "note_flow"],
        ]);
      })
    ),
);

Deno.test(
  "pods are held below the cgroups that are named last",
  ROOT,
  () =>
    withMaps(({ hold }) =>
      withCgroup((first) =>
        withCgroup(async (second) => {
          hold.below([first]);
          hold.below([first, second]); // adopts what is there
          assert.deepEqual(await attachedPrograms(first), ["hold4", "hold6"]);
          assert.deepEqual(await attachedPrograms(second), ["hold4", "hold6"]);
          assert.deepEqual(hold.inspect([first, second]), []);
          hold.below([second]);
          assert.deepEqual(await attachedPrograms(first), []);
          assert.deepEqual(await attachedPrograms(second), ["hold4", "hold6"]);
          hold.below([]);
          assert.deepEqual(await attachedPrograms(second), []);
        })
      )
    ),
);

Deno.test(
  "what holds no more, or would not outlive the agent, is noticed and is mended",
  ROOT,
  () =>
    withMaps(({ hold, stateDirectory }) =>
      withCgroup(async (cgroup) => {
        assert.deepEqual(kinds(hold.inspect([cgroup])), ["hold", "hold"]);
        hold.below([cgroup]);
        assert.deepEqual(hold.inspect([cgroup]), []);
        const pins = `${stateDirectory}/holds/${cgroupId(cgroup)}`;
        await bpftool("link", "detach", "pinned", `${pins}/hold4`);
        assert.deepEqual(hold.inspect([cgroup]), [
          { kind: "hold", what: `hold4 is not attached to ${cgroup}` },
        ]);
        hold.below([cgroup]);
        rmSync(`${stateDirectory}/holds`, { recursive: true });
        assert.deepEqual(await attachedPrograms(cgroup), ["hold4", "hold6"]);
        assert.deepEqual(kinds(hold.inspect([cgroup])), ["pin", "pin"]);
        hold.below([cgroup]);
        assert.deepEqual(hold.inspect([cgroup]), []);
        assert.deepEqual(await attachedPrograms(cgroup), ["hold4", "hold6"]);
      })
    ),
);

Deno.test(
  "who was let go is forgotten when the cgroup is gone",
  ROOT,
  () =>
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
    ),
);
