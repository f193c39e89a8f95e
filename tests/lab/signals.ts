/** Closes `lab` before the process ends by SIGINT or SIGTERM. */
export function closeOnSignal(lab: Closable): void {
  if (open.size === 0) {
    Deno.addSignalListener("SIGINT", onInterrupt);
    Deno.addSignalListener("SIGTERM", onTerminate);
  }
  open.add(lab);
}

export function forgetOnSignal(lab: Closable): void {
  if (!open.delete(lab) || open.size > 0) return;
  // A listener that stays would keep the process, and a test's resources, open.
  Deno.removeSignalListener("SIGINT", onInterrupt);
  Deno.removeSignalListener("SIGTERM", onTerminate);
}

interface Closable {
  close(): Promise<void>;
}

const open = new Set<Closable>();
const onInterrupt = () => void closeAll(130);
const onTerminate = () => void closeAll(143);

async function closeAll(exitCode: number): Promise<void> {
  await Promise.allSettled([...open].map((lab) => lab.close()));
  Deno.exit(exitCode);
}
