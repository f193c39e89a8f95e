import { infoOf, openPinned } from "./bpf_info.ts";
import { ENOSPC, SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";
import { cString, libc } from "./libc.ts";

/** What the kernel says of a link at this moment. */
export interface BpfLinkInfo {
  readonly id: number;
  readonly programId: number;
  /**
   * enum bpf_attach_type; 0 for a link that belongs to neither a cgroup nor a network namespace.
   */
  readonly attachType: number;
  /**
   * The ID of its cgroup, or the inode number of its network namespace; 0 when it is attached no
   * more.
   */
  readonly target: bigint;
}

/** An attached program: it stays attached while the link is held open or pinned. */
export class BpfLink implements Disposable {
  #open = true;

  private constructor(readonly descriptor: number) {}

  /** Attaches a program to an open cgroup or network namespace. Throws a SystemError. */
  static attach(program: number, target: number, attachType: number, about: string): BpfLink {
    const descriptor = libbpf.bpf_link_create(program, target, attachType, null);
    if (descriptor < 0) throw new SystemError("bpf_link_create", -descriptor, about);
    return new BpfLink(descriptor);
  }

  /**
   * Opens what is pinned as `path`, which may be something else than a link; undefined when nothing
   * is. Throws a SystemError when that cannot be told.
   */
  static open(path: string): BpfLink | undefined {
    const descriptor = openPinned(path);
    return descriptor === undefined ? undefined : new BpfLink(descriptor);
  }

  info(): BpfLinkInfo {
    // What is written only for some kinds must not be an earlier call's.
    const [type = 0, id = 0, programId = 0] = infoOf(this.descriptor, scratch.fill(0), "a link");
    const view = scratchView;
    switch (type) {
      case BPF_LINK_TYPE_CGROUP:
        return {
          id,
          programId,
          target: view.getBigUint64(16, true),
          attachType: view.getUint32(24, true),
        };
      case BPF_LINK_TYPE_NETNS:
        return {
          id,
          programId,
          target: BigInt(view.getUint32(16, true)),
          attachType: view.getUint32(20, true),
        };
      default:
        return { id, programId, target: 0n, attachType: 0 };
    }
  }

  /** Throws a SystemError. */
  pin(path: string): void {
    const result = libbpf.bpf_obj_pin(this.descriptor, cString(path));
    if (result < 0) throw new SystemError("bpf_obj_pin", -result, path);
  }

  /**
   * Puts another program in the attached one's place, with no moment between the two. Throws a
   * SystemError.
   */
  replace(program: number, about: string): void {
    const result = libbpf.bpf_link_update(this.descriptor, program, null);
    if (result < 0) throw new SystemError("bpf_link_update", -result, about);
  }

  /**
   * Detaches it at once, whoever else holds it open (Linux 5.9). Repeating it is no error. Throws a
   * SystemError.
   */
  detach(about: string): void {
    const result = libbpf.bpf_link_detach(this.descriptor);
    if (result < 0) throw new SystemError("bpf_link_detach", -result, about);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.descriptor);
  }
}

/**
 * The IDs of the programs that are attached to this very cgroup or network namespace, an open
 * descriptor, by whatever link. Throws a SystemError.
 */
export function attachedProgramIds(target: number, attachType: number, about: string): number[] {
  for (;;) {
    programCount[0] = programIds.length;
    const result = libbpf.bpf_prog_query(target, attachType, 0, null, programIds, programCount);
    if (result === -ENOSPC && programIds.length < MAX_PROGRAMS) {
      // Another gateway's or a user's programs stand there, too.
      programIds = new Uint32Array(2 * programIds.length);
      continue;
    }
    if (result < 0) throw new SystemError("bpf_prog_query", -result, about);
    return [...programIds.subarray(0, programCount[0])];
  }
}

/** For every call: none is left before it has been read. Links are inspected by the hundred. */
const scratch = new Uint32Array(8);
const scratchView = new DataView(scratch.buffer);
let programIds = new Uint32Array(64);
const programCount = new Uint32Array(1);

/** More than the kernel lets stand in one place (BPF_CGROUP_MAX_PROGS, linux/bpf-cgroup.h: 64). */
const MAX_PROGRAMS = 1024;

// enum bpf_link_type, linux/bpf.h
const BPF_LINK_TYPE_CGROUP = 3;
const BPF_LINK_TYPE_NETNS = 5;
