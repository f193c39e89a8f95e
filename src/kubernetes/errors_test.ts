import { match, strictEqual } from "node:assert/strict";
import { ApiError, errorText } from "./errors.ts";

Deno.test("an error's text tells its causes, once each and not without end", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${listener.addr.port}/`;
  listener.close();
  match(errorText(await fetch(url).catch((error) => error)), /127\.0\.0\.1.*refused/i);
  strictEqual(errorText(new ApiError(503, "", "GET /x: 503 away")), "GET /x: 503 away");
  strictEqual(errorText(new Error("a", { cause: new Error("a") })), "a");
  strictEqual(errorText(new Error("a", { cause: "b" })), "a: b");
  const endless = new Error("x".repeat(900));
  endless.cause = endless;
  strictEqual(errorText(endless).length, 500);
});
