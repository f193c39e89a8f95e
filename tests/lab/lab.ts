import { Agent, type AgentOptions, COMMAND, REPOSITORY } from "./agent.ts";
import { Capture, type CaptureOptions, watchLink } from "./capture.ts";
import { cgroupMount } from "./cgroup.ts";
import { ClusterApi } from "./cluster_api.ts";
import { ClusterDirectory } from "./cluster_dir.ts";
import { until } from "./delay.ts";
import { buildFabric, connectPods } from "./network.ts";
import { Node } from "./node.ts";
import type { TcpPacket } from "./pcap.ts";
import { Place } from "./place.ts";
import { Pod, type PodOptions } from "./pod.ts";
import { type LabProcess, Processes, runScript } from "./process.ts";
import { closeOnSignal, forgetOnSignal } from "./signals.ts";
import { PREFIX, removeTraces, sweep, TEMPORARY_ROOT } from "./sweep.ts";

export interface LabOptions {
  /** The nodes' names; "node-a" and "node-b" when not given. */
  nodes?: string[];
  /**
   * What plays the API server: a directory (when not given), or a process that speaks its protocol.
   */
  cluster?: "directory" | "api";
}

export interface SignerOptions {
  /** Further arguments, after the lab's own. */
  args?: string[];
  /** Any, when not given. */
  healthPort?: number;
}

/**
 * Nodes and pods played by network namespaces, cgroups and processes (root needed). The header of
 * network.ts draws the network. Closing the lab removes every trace of it.
 */
export class Lab implements AsyncDisposable {
  readonly nodes: Node[];
  readonly pods: Pod[] = [];
  /** The newest agent of each node, running or not, by the node's name. */
  readonly agents = new Map<string, Agent>();
  /** A host beyond the nodes (`OUTSIDE` in network.ts), never a peer. */
  readonly outside: Place;
  /** A directory of this lab for whatever a test wants to keep. */
  readonly temporary: string;
  /** The lab's own bpffs. */
  readonly bpffs: string;
  readonly #processes = new Processes();
  readonly #cluster: ClusterDirectory;
  #api?: ClusterApi;
  #captures = 0;
  #closed?: Promise<void>;

  static async open(
    { nodes = ["node-a", "node-b"], cluster = "directory" }: LabOptions = {},
  ): Promise<Lab> {
    await sweep();
    const name = claimName();
    const lab = new Lab(name, nodes);
    closeOnSignal(lab);
    try {
      await lab.#build();
      if (cluster === "api") {
        lab.#api = await ClusterApi.open(lab.outside, lab.nodes, lab.temporary);
      }
      return lab;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(readonly name: string, nodes: string[]) {
    const cgroup = `${cgroupMount()}/${name}`;
    this.temporary = `${TEMPORARY_ROOT}/${name}`;
    this.bpffs = `${this.temporary}/bpf`;
    this.#cluster = new ClusterDirectory(`${this.temporary}/cluster`);
    this.outside = new Place(this.#processes, `${name}-outside`, `${cgroup}/outside`);
    this.nodes = nodes.map((node, index) =>
      new Node(this.#processes, node, index + 1, `${name}-node-${node}`, `${cgroup}/${node}`)
    );
  }

  /** What the agents get as `--cluster`. */
  get directory(): string {
    return this.#cluster.path;
  }

  /** The cluster's API server, when the lab was opened with one. */
  get api(): ClusterApi {
    if (!this.#api) throw new Error("The lab was opened without an API server");
    return this.#api;
  }

  node(name: string): Node {
    const found = this.nodes.find((node) => node.name === name);
    if (!found) throw new Error(`The lab has no node ${name}`);
    return found;
  }

  /** A pod by its name, which must be in one namespace only. */
  pod(name: string): Pod {
    const found = this.pods.find((pod) => pod.name === name);
    if (!found) throw new Error(`The lab has no pod ${name}`);
    return found;
  }

  /** The newest agent of a node. */
  agent(nodeName: string): Agent {
    const found = this.agents.get(nodeName);
    if (!found) throw new Error(`No agent was started on ${nodeName}`);
    return found;
  }

  async addPod(options: PodOptions): Promise<Pod> {
    const [pod] = await this.addPods([options]);
    return pod!;
  }

  /**
   * Adds many pods at once, which is much faster than one after another. `started` is called when a
   * pod has its sandbox and before its object follows, as kubelet starts containers before it
   * writes the status.
   */
  async addPods(all: PodOptions[], started: (pod: Pod) => void = () => {}): Promise<Pod[]> {
    const store = this.#api ?? this.#cluster;
    const forget = (pod: Pod) => void this.pods.splice(this.pods.indexOf(pod), 1);
    const added = all.map((options) =>
      new Pod(this.#processes, this.node(options.node), this.name, options, store, forget)
    );
    this.pods.push(...added);
    for (const pod of added) if (pod.options.object === "before") await pod.apply("Pending");
    for (const pod of added) await pod.makeCgroups(); // kubelet makes them before the sandbox.
    for (const node of this.nodes) {
      await connectPods(node, added.filter((pod) => pod.node === node && !pod.hostNetwork));
    }
    for (const pod of added) {
      pod.startSandbox();
      started(pod);
    }
    for (const pod of added) {
      if ((pod.options.object ?? "after") === "after") await pod.apply();
    }
    return added;
  }

  /** Writes every pod's object again. */
  async writePods(): Promise<void> {
    for (const pod of this.pods) await pod.apply();
  }

  /**
   * Writes another object's file (`.yaml` or `.json`, also in `registry/`) into the cluster
   * directory, atomically.
   */
  async write(fileName: string, text: string): Promise<void> {
    await this.#cluster.write(fileName, text);
  }

  async remove(fileName: string): Promise<void> {
    await this.#cluster.remove(fileName);
  }

  /** Starts the agent of a node; a later one of the same node adopts its pins. */
  async startAgent(nodeName: string, options: AgentOptions = {}): Promise<Agent> {
    const agent = new Agent(this.#processes, this.node(nodeName), {
      source: this.#api
        ? ["--kubeconfig", await this.#api.agentKubeconfig(nodeName)]
        : ["--cluster", this.directory],
      stateDirectory: `${this.bpffs}/${nodeName}`,
      adminSocket: `${this.temporary}/${nodeName}.sock`,
    }, options);
    this.agents.set(nodeName, agent);
    if (options.wait ?? true) await agent.waitReady();
    return agent;
  }

  /** Starts a signer beside the API server. */
  async startSigner(options: SignerOptions = {}): Promise<LabProcess> {
    const argv = [
      ...[...COMMAND, "signer", "--log-format", "json"],
      ...["--kubeconfig", await this.api.signerKubeconfig()],
      ...["--health-address", `127.0.0.1:${options.healthPort ?? 0}`],
      ...(options.args ?? []),
    ];
    return this.outside.spawn(argv, { env: { NO_COLOR: "1" }, cwd: REPOSITORY });
  }

  /** Waits until a pod is enrolled on its node and a peer for every other running agent. */
  async waitEnrolled(pod: Pod, timeoutMs = 15_000): Promise<void> {
    await this.#waitForAgents(pod, "enrolled", timeoutMs, async (agent) => {
      const { enrolments, peers } = await agent.status();
      if (agent.node === pod.node) {
        return enrolments.some(({ uid, state }) => uid === pod.uid && state === "active");
      }
      return pod.addresses.every((wanted) =>
        peers.some(({ address, uid }) => address === wanted && uid === pod.uid)
      );
    });
  }

  /** Waits until no running agent knows a pod, neither as its own nor as a peer. */
  async waitPlain(pod: Pod, timeoutMs = 15_000): Promise<void> {
    await this.#waitForAgents(pod, "plain", timeoutMs, async (agent) => {
      const { enrolments, peers } = await agent.status();
      return !enrolments.some(({ uid }) => uid === pod.uid) &&
        !peers.some(({ address }) => pod.addresses.includes(address));
    });
  }

  /** Captures what passes between a node and the others. */
  async captureNodeLink(nodeName: string, options?: CaptureOptions): Promise<Capture> {
    const node = this.node(nodeName);
    return await Capture.start(node, node.uplink, this.#captureFile(), options);
  }

  /** Captures what passes between a node's own network and the bridge to its pods. */
  async captureBridge(nodeName: string, options?: CaptureOptions): Promise<Capture> {
    return await Capture.start(this.node(nodeName), "cni0", this.#captureFile(), options);
  }

  /** Captures what passes between a pod and its node. */
  async captureVeth(pod: Pod, options?: CaptureOptions): Promise<Capture> {
    if (pod.hostNetwork) throw new Error(`Cannot capture ${pod.key}: it has no link of its own`);
    return await Capture.start(pod.node, pod.hostVeth, this.#captureFile(), options);
  }

  /** Calls `onPacket` for each TCP packet between a node and the others, until disposed. */
  async watchLink(
    nodeName: string,
    onPacket: (packet: TcpPacket) => void,
    options?: CaptureOptions,
  ): Promise<LabProcess> {
    const node = this.node(nodeName);
    return await watchLink(node, node.uplink, onPacket, options);
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #build(): Promise<void> {
    await Deno.mkdir(this.directory, { recursive: true, mode: 0o755 });
    await Deno.chmod(this.temporary, 0o755);
    await Deno.mkdir(this.bpffs);
    await runScript(`mount -t bpf bpf ${this.bpffs}`);
    await Deno.mkdir(this.outside.processCgroup);
    for (const node of this.nodes) await node.makeCgroups();
    await buildFabric(`${this.name}-fabric`, this.outside.netns, this.nodes);
  }

  async #close(): Promise<void> {
    // All at once, also the children of what was spawned: they hold its pipes open, for whose end
    // we wait.
    await Deno.writeTextFile(`${cgroupMount()}/${this.name}/cgroup.kill`, "1", { create: false });
    await this.#processes.killAll();
    await removeTraces(this.name);
    forgetOnSignal(this);
  }

  async #waitForAgents(
    pod: Pod,
    state: string,
    timeoutMs: number,
    isTrueFor: (agent: Agent) => Promise<boolean>,
  ): Promise<void> {
    const running = () => [...this.agents.values()].filter((agent) => agent.isRunning);
    const own = () => running().some((agent) => agent.node === pod.node);
    const everywhere = async () => {
      if (state === "enrolled" && !own()) return false;
      const answers = await Promise.all(running().map((agent) => isTrueFor(agent)));
      return answers.every(Boolean);
    };
    const describe = () => `The pod ${pod.key} is not ${state}\n${this.logTails()}`;
    // An agent that is just going away does not answer: that is not yet a failure.
    await until(() => everywhere().catch(() => false), timeoutMs, describe);
  }

  /** What the agents have said last, for the message of a failure. */
  logTails(): string {
    return [...this.agents.values()].map((agent) => `${agent.node.name}:\n${agent.logTail()}`)
      .join("\n");
  }

  #captureFile(): string {
    return `${this.temporary}/capture-${++this.#captures}.pcap`;
  }
}

// Making a directory is atomic: labs of one process (Deno runs each test file in a thread of its
// own) and of several never share a name.
function claimName(): string {
  for (let number = 1;; number++) {
    const name = `${PREFIX}-${Deno.pid}-${number}`;
    try {
      Deno.mkdirSync(`${cgroupMount()}/${name}`);
      return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }
}
