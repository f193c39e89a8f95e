/** The API server answered, and not with success. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    /** The HTTP status, or the code of a watch's ERROR event. */
    readonly status: number,
    /** Of the Status object: `NotFound`, `Conflict`, `Expired`…; empty when there was none. */
    readonly reason: string,
    message: string,
    readonly retryAfterSeconds?: number,
  ) {
    super(message);
  }
}

/** The API server did not answer in time. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

/** The answer has more bytes than were to be read of it. */
export class TooLarge extends Error {
  override readonly name = "TooLarge";
}

/**
 * Whether the API server may answer otherwise when it is asked again: no answer at all, 429 or 5xx.
 */
export function isOutage(error: unknown): boolean {
  if (error instanceof TooLarge) return false;
  if (error instanceof ApiError) return error.status === 429 || error.status >= 500;
  return true;
}

/**
 * retryAfterMilliseconds is how long the API server has asked to wait, at most 30 s: certificates
 * expire.
 */
export function retryAfterMilliseconds(error: unknown): number {
  if (!(error instanceof ApiError)) return 0;
  return Math.min((error.retryAfterSeconds ?? 0) * 1_000, 30_000);
}
