import { getJsonLinesFormatter, getTextFormatter, type TextFormatter } from "@logtape/logtape";
import { errorText, printable } from "../error_text.ts";

/** One JSON object a line, for programs: the sentence, and every property under its own name. */
export function jsonLines(): TextFormatter {
  return getJsonLinesFormatter({
    message: "rendered",
    properties: "flatten",
    categorySeparator: ".",
  });
}

/**
 * One line for people: time, level, logger, the sentence, and `key=value` for each property that
 * the sentence does not say.
 *
 *     2026-11-27T13:40:10.123Z INFO kube-gateway.agent: the agent of node-a is ready workers=2
 */
export function textLines(): TextFormatter {
  return getTextFormatter({
    timestamp: "rfc3339",
    level: (level) => level === "warning" ? "WARN" : level.toUpperCase(), // as in JSON
    category: ".",
    value: plain,
    format({ timestamp, level, category, message, record }) {
      const rest = Object.entries(record.properties)
        .filter(([key, value]) => !isSaid(key, value, record.rawMessage, message))
        .map(([key, value]) => ` ${key}=${field(value)}`);
      return `${timestamp} ${level} ${category}: ${message}${rest.join("")}`;
    },
  });
}

/**
 * Whether the sentence has the property already: by a placeholder, or because its text is in it.
 */
function isSaid(
  key: string,
  value: unknown,
  template: string | TemplateStringsArray,
  message: string,
): boolean {
  if (value === undefined) return true;
  if (typeof template === "string" && template.includes(`{${key}}`)) return true;
  return typeof value === "string" && value !== "" && message.includes(plain(value));
}

/** A value inside a sentence. */
function plain(value: unknown): string {
  if (typeof value === "string") return printable(value);
  if (value instanceof Error) return errorText(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object" && value !== null) return printable(JSON.stringify(value));
  return String(value);
}

/** A value after `key=`, in quotes where its end could not be told. */
function field(value: unknown): string {
  const text = plain(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}
