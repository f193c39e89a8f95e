/** What kube-controller-manager's garbage collector does with ownerReferences. */
import type { KubeObject, OwnerReference } from "./objects.ts";
import { type Resource, resourceOfKind } from "./resources.ts";
import type { Store } from "./store.ts";

/** Deletes what nobody owns any more now that `owner` is gone, or with `orphan` frees it. */
export function collectDependents(store: Store, owner: KubeObject, orphan: boolean): void {
  const dependents = [...store.all()].map(({ stored }) => stored.object).filter(({ metadata }) =>
    metadata.ownerReferences?.some(({ uid }) => uid === owner.metadata.uid)
  );
  for (const object of dependents) {
    const resource = resourceOfKind(object.apiVersion, object.kind);
    const { ownerReferences = [], namespace = "", name } = object.metadata;
    if (store.get(resource, namespace, name)?.object !== object) continue; // Gone with another.
    const others = ownerReferences.filter(({ uid }) => uid !== owner.metadata.uid);
    if (!orphan && !others.some((other) => exists(store, object, other))) {
      collect(store, resource, object);
    } else {
      const metadata = { ...object.metadata, ownerReferences: others };
      if (others.length === 0) delete (metadata as Partial<typeof metadata>).ownerReferences;
      store.put(resource, { ...object, metadata });
    }
  }
}

/** An object whose owners never existed (a wrong UID, another namespace) goes soon, too. */
export function collectWhenOwnerless(store: Store, resource: Resource, object: KubeObject): void {
  const { ownerReferences = [], namespace = "", name, uid } = object.metadata;
  if (ownerReferences.length === 0) return;
  setTimeout(() => {
    const now = store.get(resource, namespace, name)?.object;
    const owners = now?.metadata.ownerReferences ?? [];
    if (now?.metadata.uid !== uid || owners.length === 0) return;
    if (!owners.some((owner) => exists(store, now, owner))) collect(store, resource, now);
  }, DELAY_MS);
}

/** As fast as a real one when it has nothing else to do. */
const DELAY_MS = 5;

function collect(store: Store, resource: Resource, object: KubeObject): void {
  store.remove(resource, object);
  collectDependents(store, object, false);
}

function exists(store: Store, { metadata }: KubeObject, owner: OwnerReference): boolean {
  try {
    const resource = resourceOfKind(owner.apiVersion, owner.kind);
    const namespace = resource.namespaced ? metadata.namespace ?? "" : "";
    return store.get(resource, namespace, owner.name)?.object.metadata.uid === owner.uid;
  } catch {
    return true; // A kind that this server does not have: not for it to judge.
  }
}
