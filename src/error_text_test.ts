import { match, strictEqual } from "node:assert/strict";
import { errorText } from "./error_text.ts";

Deno.test("an error's text tells its causes, once each and not without end", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${listener.addr.port}/`;
  listener.close();
  match(errorText(await fetch(url).catch((error) => error)), /127\.0\.0\.1.*refused/i);
  strictEqual(errorText(new Error("GET /x: 503 away")), "GET /x: 503 away");
  strictEqual(errorText(new Error("a", { cause: new Error("a") })), "a");
  strictEqual(errorText(new Error("a", { cause: "b" })), "a: b");
  strictEqual(
    errorText(new Error("cannot read /x: no such file", { cause: new Error("no such file") })),
    "cannot read /x: no such file",
  );
  strictEqual(
    errorText(new Error("1", { cause: new Error("2", { cause: new Error("3") }) })),
    "1: 2: 3",
  );
  const endless = new Error("x".repeat(900));
  endless.cause = endless;
  strictEqual(errorText(endless).length, 500);
});

Deno.test("what others wrote into an error forges no second line and moves no cursor", () => {
  strictEqual(errorText(new Error("a\n  b\r\nc")), "a b c");
  strictEqual(errorText("a\x1b[2Jb"), "a\\u{1b}[2Jb");
  strictEqual(errorText("a\u202eb"), "a\\u{202e}b");
});

Deno.test("what is no error, or has no message, is named all the same", () => {
  strictEqual(errorText(new TypeError()), "TypeError");
  strictEqual(errorText("plain"), "plain");
  strictEqual(errorText(undefined), "unknown error");
  strictEqual(errorText(null), "unknown error");
});
