// Parses the AsyncAPI document; exits 1 with every finding unless it is valid.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const one of diagnostics.filter((one) => one.severity === 0)) {
  console.error(`${one.path.join(".")}: ${one.message}`);
}
if (!document) process.exit(1);
console.log(`valid AsyncAPI ${document.version()}: ${document.allMessages().all().length} messages`);
