import assert from "node:assert/strict";
import {
  parseBusySeconds,
  parseCpuStat,
  parseIperf,
  parseReport,
  parseResident,
  parseWrk,
} from "./parse.ts";

Deno.test("iperf3 tells what arrived", () => {
  const output = JSON.stringify({
    start: {},
    end: { sum_received: { bytes: 2_500_000_000, bits_per_second: 1e10 } },
  });
  assert.deepEqual(parseIperf(output), { gigabytes: 2.5, gigabitsPerSecond: 10 });
});

Deno.test("iperf3's own error is what is thrown", () => {
  const output = JSON.stringify({ start: {}, end: {}, error: "the server is busy" });
  assert.throws(() => parseIperf(output), /iperf3: the server is busy/);
  assert.throws(() => parseIperf(""), /iperf3 printed no JSON: nothing/);
});

const WRK = `Running 1s test @ http://10.77.2.2:8080/
  1 threads and 64 connections
  22000 requests in 1.10s, 4.62MB read
Requests/sec:  20123.45
Transfer/sec:      4.20MB`;

Deno.test("wrk's rate, unless too much has failed", () => {
  assert.equal(parseWrk(WRK), 20123.45);
  const errors = (timeout: number) =>
    `${WRK}\n  Socket errors: connect 0, read 20, write 0, timeout ${timeout}`;
  assert.equal(parseWrk(errors(0)), 20123.45);
  assert.throws(() => parseWrk(errors(500)), /wrk: 520 failed, 22000 did not/);
  assert.throws(() => parseWrk(`${WRK}\n  Non-2xx or 3xx responses: 21999`), /21999 failed/);
});

Deno.test("wrk without a single answer has failed", () => {
  const nothing = "  0 requests in 1.00s, 0.00B read\nRequests/sec:      0.00";
  assert.throws(() => parseWrk(nothing), /wrk had no answer/);
  assert.throws(() => parseWrk("unable to connect"), /unable to connect/);
});

Deno.test("a client's report is its last object", () => {
  assert.deepEqual(parseReport('{"held":1}\nnoise\n{"p50":1.5,"p99":2}\n'), { p50: 1.5, p99: 2 });
  assert.throws(() => parseReport("killed"), /no report: killed/);
  assert.throws(() => parseReport('{"p50":"fast"}'));
});

Deno.test("busy is all that is neither idle nor waiting for a disk nor another guest's", () => {
  //          user nice system idle iowait irq softirq steal guest guest_nice
  const stat = "cpu  100 20 300 9999 888 4 50 6 77 7\ncpu0 1 2 3 4\n";
  assert.equal(parseBusySeconds(stat), 4.8);
});

Deno.test("a control group's seconds", () => {
  assert.equal(parseCpuStat("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n"), 2.5);
  assert(Number.isNaN(parseCpuStat("")));
});

Deno.test("a process's kilobytes are the kernel's kibibytes", () => {
  assert.equal(parseResident("Name:\tnginx\nVmRSS:\t    1000 kB\n"), 1024);
  assert(Number.isNaN(parseResident("Name:\tkthreadd\n")));
});
