import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type UnopenedTunnel, UnopenedTunnels } from "./unopened.ts";

const [WEB, API, DB] = [{}, {}, {}];

/** Tunnels that note when they had to give way. */
class Scene {
  readonly tunnels = new UnopenedTunnels(10, 25);
  readonly gone: object[] = [];

  begin(pod: object, count: number): UnopenedTunnel[] {
    return Array.from({ length: count }, () => {
      const tunnel: UnopenedTunnel = {
        pod,
        evict: () => {
          this.gone.push(tunnel);
          this.tunnels.delete(tunnel);
        },
      };
      this.tunnels.add(tunnel);
      return tunnel;
    });
  }

  /** How many of a pod's have had to give way. */
  lost(pod: object): number {
    return this.gone.filter((tunnel) => (tunnel as UnopenedTunnel).pod === pod).length;
  }
}

Deno.test("a pod's tunnels give way to its own newer ones, any of them", () => {
  const scene = new Scene();
  const first = scene.begin(WEB, 10);
  scene.begin(API, 5);
  const next = scene.begin(WEB, 100);
  deepStrictEqual([scene.tunnels.size, scene.lost(WEB), scene.lost(API)], [15, 100, 0]);
  strictEqual(new Set(scene.gone).size, 100, "each once");
  ok(first.some((tunnel) => scene.gone.includes(tunnel)), "those that came first");
  ok(next.some((tunnel) => scene.gone.includes(tunnel)), "and those that came later");
});

Deno.test("when a worker has too many, the pod that has most gives way", () => {
  const scene = new Scene();
  scene.begin(WEB, 10);
  scene.begin(API, 9);
  scene.begin(DB, 6);
  scene.begin(DB, 2);
  deepStrictEqual([scene.lost(WEB), scene.lost(API), scene.lost(DB)], [2, 0, 0]);
  strictEqual(scene.tunnels.size, 25);
});

Deno.test("who has sent OPEN counts no more, and is not hit", () => {
  const scene = new Scene();
  const opened = scene.begin(WEB, 10);
  for (const tunnel of opened) scene.tunnels.delete(tunnel);
  for (const tunnel of opened) scene.tunnels.delete(tunnel); // once more does nothing
  strictEqual(scene.tunnels.size, 0);
  scene.begin(WEB, 30);
  strictEqual(scene.lost(WEB), 20);
  ok(!opened.some((tunnel) => scene.gone.includes(tunnel)));
});
