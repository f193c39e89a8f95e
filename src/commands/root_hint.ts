/**
 * What a command says when it has failed, with what to do when user `uid` may not do what only root
 * may.
 */
export function withRootHint(message: string, uid: number | null): string {
  const isForbidden = /\b(EACCES|EPERM)\b|permission denied/i.test(message);
  if (!isForbidden || uid === 0 || message.includes(HINT)) return message;
  return `${message}: ${HINT}`;
}

const HINT = "run this as root";
