/** A failure as the API server tells it: an HTTP status with a `Status` object. */
export class StatusError extends Error {
  override readonly name = "StatusError";

  constructor(
    readonly code: number,
    readonly reason: string,
    message: string,
    readonly details?: Record<string, unknown>,
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }

  get status(): Record<string, unknown> {
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message: this.message,
      reason: this.reason,
      ...(this.details === undefined ? {} : { details: this.details }),
      code: this.code,
    };
  }
}

/** What a failure is about. */
interface About {
  readonly group: string;
  readonly plural: string;
}

const qualified = ({ group, plural }: About) => group === "" ? plural : `${plural}.${group}`;

const details = ({ group, plural }: About, name: string) => ({
  name,
  ...(group === "" ? {} : { group }),
  kind: plural,
});

export function badRequest(message: string): StatusError {
  return new StatusError(400, "BadRequest", message);
}

export function notFound(about: About, name: string): StatusError {
  const message = `${qualified(about)} "${name}" not found`;
  return new StatusError(404, "NotFound", message, details(about, name));
}

export function noSuchPath(): StatusError {
  return new StatusError(404, "NotFound", "the server could not find the requested resource");
}

export function alreadyExists(about: About, name: string): StatusError {
  const message = `${qualified(about)} "${name}" already exists`;
  return new StatusError(409, "AlreadyExists", message, details(about, name));
}

export function conflict(about: About, name: string, why = STALE): StatusError {
  const message = `Operation cannot be fulfilled on ${qualified(about)} "${name}": ${why}`;
  return new StatusError(409, "Conflict", message, details(about, name));
}

export function invalid(about: About, name: string, field: string, why: string): StatusError {
  const message = `${qualified(about)} "${name}" is invalid: ${field}: ${why}`;
  const causes = [{ reason: "FieldValueInvalid", message: why, field }];
  return new StatusError(422, "Invalid", message, { ...details(about, name), causes });
}

export function forbidden(about: About, name: string, why: string): StatusError {
  const what = name === "" ? qualified(about) : `${qualified(about)} "${name}"`;
  return new StatusError(403, "Forbidden", `${what} is forbidden: ${why}`, details(about, name));
}

export function unauthorized(): StatusError {
  return new StatusError(401, "Unauthorized", "Unauthorized");
}

/** A resource version or a continue token from before the history that is kept. */
export function gone(message: string): StatusError {
  return new StatusError(410, "Expired", message);
}

const STALE =
  "the object has been modified; please apply your changes to the latest version and try again";
