/** The command `kube-gateway`: one subcommand, its options, and what it ends with. */
import { parseCommandLine, UsageError } from "./commands/command_line.ts";
import { withRootHint } from "./commands/root_hint.ts";
import { errorText } from "./error_text.ts";

try {
  const command = parseCommandLine(Deno.args);
  if ("help" in command) {
    console.log(command.help);
  } else {
    // Imported when it is known which: `status` should not load what the agent needs.
    switch (command.name) {
      case "agent": {
        const { agentCommand } = await import("./commands/agent.ts");
        await agentCommand(command.options);
        break;
      }
      case "signer": {
        const { signerCommand } = await import("./commands/signer.ts");
        await signerCommand(command.options);
        break;
      }
      case "status": {
        const { statusCommand } = await import("./commands/status.ts");
        await statusCommand(command.options);
        break;
      }
      case "conns": {
        const { connsCommand } = await import("./commands/conns.ts");
        await connsCommand(command.options);
        break;
      }
      case "audit": {
        const { auditCommand } = await import("./commands/audit.ts");
        await auditCommand(command.options);
        break;
      }
      case "certs": {
        const { certsCommand } = await import("./commands/certs.ts");
        await certsCommand(command.options);
        break;
      }
      case "check": {
        const { checkCommand } = await import("./commands/check.ts");
        if (!checkCommand(command.options)) Deno.exit(1);
        break;
      }
      case "ca check": {
        const { caCheckCommand } = await import("./commands/ca_check.ts");
        await caCheckCommand(command.operand, command.options);
        break;
      }
      case "version": {
        const { versionCommand } = await import("./commands/version.ts");
        await versionCommand(command.options);
        break;
      }
      case "cleanup": {
        const { cleanupCommand } = await import("./commands/cleanup.ts");
        cleanupCommand(command.options);
        break;
      }
    }
  }
} catch (error) {
  for (const each of error instanceof AggregateError ? error.errors : [error]) {
    console.error(`kube-gateway: ${withRootHint(errorText(each), Deno.uid())}`);
  }
  Deno.exit(error instanceof UsageError ? 2 : 1);
}
// A worker may still sit in epoll_wait, and would keep the process from ending by itself.
Deno.exit(); // with the exit code that the command has set
