import { type Admission, admit } from "./admission.ts";
import { asCoreEvent } from "./event_rules.ts";
import { collectDependents, collectWhenOwnerless } from "./garbage.ts";
import {
  contentOf,
  gracePeriod,
  hasSpec,
  keepServerFields,
  randomSuffix,
  readObject,
  withoutStatus,
  withStatus,
} from "./fields.ts";
import { fieldsAt, type KubeObject, same, textAt, timestamp } from "./objects.ts";
import { applyPatch } from "./patch.ts";
import { findResource, type Resource, resourceOfKind } from "./resources.ts";
import { generatedNameBase } from "./metadata_rules.ts";
import { rulesOf, validateMetadata, type Write } from "./rules.ts";
import { requireStorable } from "./sizes.ts";
import { alreadyExists, badRequest, conflict, forbidden, notFound } from "./status.ts";
import type { Store, Stored } from "./store.ts";
import type { UserInfo } from "./users.ts";

/** An object or one of its subresources, and who wants to write it. */
export interface Target extends Write {
  readonly namespace: string;
  readonly name: string;
}

export interface DeleteOptions {
  gracePeriodSeconds?: number;
  propagationPolicy?: string;
  preconditions?: { uid?: string; resourceVersion?: string };
}

/** The writes of the API, after authentication and RBAC. */
export class Operations {
  constructor(readonly store: Store, private readonly admission: Admission | undefined) {}

  get(target: Target): Stored {
    const { resource, namespace, name } = target;
    const found = this.store.get(resource, namespace, name);
    if (!found) throw notFound(resource, name);
    return found;
  }

  /** @throws {StatusError} 400, 404 (no such namespace), 409, 422. */
  create(target: Target, body: unknown): Stored {
    const { resource, user } = target;
    const object = readObject(target, body);
    const { metadata } = object;
    if (metadata.resourceVersion !== "") {
      throw badRequest("resourceVersion should not be set on objects to be created");
    }
    if (metadata.name === "" && metadata.generateName) {
      metadata.name = generatedNameBase(metadata.generateName) + randomSuffix();
    }
    const write = { ...target, name: metadata.name };
    if (resource.namespaced) this.#requireNamespace(write);
    if (this.store.get(resource, target.namespace, metadata.name)) {
      throw alreadyExists(resource, metadata.name);
    }
    object.metadata = {
      ...metadata,
      uid: crypto.randomUUID(),
      creationTimestamp: timestamp(),
      ...(hasSpec(object) ? { generation: 1 } : {}),
    };
    delete object.metadata.deletionTimestamp;
    if (resource.subresources.includes("status")) delete object.status;
    rulesOf(resource).create?.(object, write);
    return this.#store(write, object, undefined, user, "CREATE");
  }

  /** PUT. @throws {StatusError} 400, 404, 409 (a stale version), 422. */
  update(target: Target, body: unknown): Stored {
    return this.#replace(target, this.get(target).object, readObject(target, body));
  }

  /** PATCH of an object that exists. */
  patch(target: Target, contentType: string, body: unknown): Stored {
    const { object } = this.get(target);
    const patched = applyPatch(contentType, structuredClone(object), body, object.kind);
    return this.#replace(target, object, readObject(target, patched));
  }

  /** What binds a pod to its node: POST …/pods/NAME/binding. */
  bind(target: Target, body: unknown): void {
    const { object } = this.get(target);
    const { name } = target;
    if (textAt(object, "spec.nodeName") !== "") {
      throw conflict(target.resource, name, `pod ${name} is already assigned to a node`);
    }
    const next = structuredClone(object);
    next.spec = { ...fieldsAt(next, "spec"), nodeName: textAt(body, "target.name") };
    this.store.put(target.resource, next);
  }

  /** @returns the object as it is then, and whether it is gone. */
  delete(target: Target, options: DeleteOptions): { stored: Stored; isGone: boolean } {
    const { resource, name } = target;
    const { object } = this.get(target);
    const { metadata } = object;
    const { uid, resourceVersion } = options.preconditions ?? {};
    if ((uid ?? metadata.uid) !== metadata.uid) {
      const why =
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metadata.uid}`;
      throw conflict(resource, name, why);
    }
    if ((resourceVersion ?? metadata.resourceVersion) !== metadata.resourceVersion) {
      throw conflict(resource, name);
    }
    admit(this.admission, "DELETE", target, undefined, object, this.store);
    if (resource.plural === "namespaces") return this.#terminate(target, object);
    const grace = gracePeriod(resource, object, options);
    if (grace === 0 && (metadata.finalizers ?? []).length === 0) {
      return { stored: this.#remove(target, object, options), isGone: true };
    }
    const due = timestamp(Date.now() + grace * 1000);
    const earliest = [metadata.deletionTimestamp ?? due, due].sort()[0] ?? due;
    if (earliest === metadata.deletionTimestamp) return { stored: this.get(target), isGone: false };
    const marked = structuredClone(object);
    marked.metadata.deletionTimestamp = earliest;
    marked.metadata.deletionGracePeriodSeconds = grace;
    return { stored: this.store.put(resource, marked), isGone: false };
  }

  /** Stores objects as they are, without rules, for tests that need very many. */
  seed(resource: Resource, body: unknown, user: UserInfo): void {
    const namespace = textAt(body, "metadata.namespace");
    const object = readObject({ resource, namespace, name: "", subresource: "", user }, body);
    const { metadata } = object;
    metadata.uid ||= crypto.randomUUID();
    metadata.creationTimestamp ??= timestamp();
    this.store.put(resource, object);
  }

  #replace(target: Target, old: KubeObject, next: KubeObject): Stored {
    const { resource, subresource, name, user } = target;
    const { resourceVersion, uid } = next.metadata;
    if (resourceVersion !== "" && resourceVersion !== old.metadata.resourceVersion) {
      throw conflict(resource, name);
    }
    if (uid !== "" && uid !== old.metadata.uid) {
      const why =
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`;
      throw conflict(resource, name, why);
    }
    const object = subresource === "" ? withoutStatus(resource, old, next) : withStatus(old, next);
    rulesOf(resource).update?.(object, old, target);
    object.metadata = keepServerFields(old, object);
    if (subresource === "" && !same(contentOf(object), contentOf(old)) && hasSpec(object)) {
      object.metadata.generation = (old.metadata.generation ?? 0) + 1;
    }
    return this.#store(target, object, old, user, "UPDATE");
  }

  #store(
    write: Target,
    object: KubeObject,
    old: KubeObject | undefined,
    user: UserInfo,
    operation: "CREATE" | "UPDATE",
  ): Stored {
    const { resource } = write;
    validateMetadata(resource, object, old);
    rulesOf(resource).validate?.(object, { ...write, user });
    admit(this.admission, operation, write, object, old, this.store);
    if (old !== undefined && same(object, old)) return this.get(write); // Nothing new, no event.
    const { deletionTimestamp, finalizers = [], deletionGracePeriodSeconds = 0 } = object.metadata;
    if (deletionTimestamp && finalizers.length === 0 && deletionGracePeriodSeconds === 0) {
      return this.#remove(write, object, {}); // Its last finalizer is done.
    }
    requireStorable(object);
    const stored = this.store.put(resource, object);
    if (resource.group === "events.k8s.io") this.#showAsCoreEvent(stored.object);
    collectWhenOwnerless(this.store, resource, stored.object);
    return stored;
  }

  /** A real server keeps one object for both of its APIs; `kubectl describe` asks the old one. */
  #showAsCoreEvent(event: KubeObject): void {
    this.store.put(findResource("", "v1", "events"), asCoreEvent(event));
  }

  #remove({ resource }: Target, object: KubeObject, options: DeleteOptions): Stored {
    const removed = this.store.remove(resource, object);
    collectDependents(this.store, object, options.propagationPolicy === "Orphan");
    if (object.metadata.namespace !== undefined) this.#finishSoon(object.metadata.namespace);
    return removed;
  }

  /** A namespace that is deleted takes nothing new, and goes when nothing is left in it. */
  #terminate(target: Target, object: KubeObject): { stored: Stored; isGone: boolean } {
    const { name, deletionTimestamp } = object.metadata;
    if (deletionTimestamp === undefined) {
      const marked = structuredClone(object);
      marked.metadata.deletionTimestamp = timestamp();
      marked.status = { ...fieldsAt(marked, "status"), phase: "Terminating" };
      this.store.put(target.resource, marked);
      setTimeout(() => this.#empty(name, target.user), CONTROLLER_MILLISECONDS);
    }
    return { stored: this.get(target), isGone: false };
  }

  /**
   * The namespace controller deletes all that is in it at once; pods then take the time that they
   * are given.
   */
  #empty(namespace: string, user: UserInfo): void {
    for (const { stored: { object } } of [...this.store.all()]) {
      if (object.metadata.namespace !== namespace) continue;
      const resource = resourceOfKind(object.apiVersion, object.kind);
      const target = { resource, namespace, name: object.metadata.name, subresource: "", user };
      if (!this.store.get(resource, namespace, target.name)) continue; // gone with its owner
      this.delete(target, {});
    }
    this.#finishSoon(namespace);
  }

  #finishSoon(name: string): void {
    const resource = findResource("", "v1", "namespaces");
    setTimeout(() => {
      const namespace = this.store.get(resource, "", name)?.object;
      if (namespace?.metadata.deletionTimestamp === undefined) return;
      const isLeft = ({ stored }: { stored: Stored }) => stored.object.metadata.namespace === name;
      if ([...this.store.all()].some(isLeft)) return;
      this.store.remove(resource, namespace);
      collectDependents(this.store, namespace, false);
    }, CONTROLLER_MILLISECONDS);
  }

  /** @throws {StatusError} 404, or 403 (NamespaceLifecycle) for one that is being deleted. */
  #requireNamespace({ resource, namespace, name }: Target): void {
    const namespaces = findResource("", "v1", "namespaces");
    const found = this.store.get(namespaces, "", namespace);
    if (!found) throw notFound(namespaces, namespace);
    if (found.object.metadata.deletionTimestamp === undefined) return;
    const why =
      `unable to create new content in namespace ${namespace} because it is being terminated`;
    throw forbidden(resource, name, why);
  }
}

/** A controller sees what has happened by a watch, then acts. */
const CONTROLLER_MILLISECONDS = 5;
