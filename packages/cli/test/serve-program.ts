/** A program that serves a model until it is told to end, as the command does: `node … MODEL`. */
import { serveCommand } from "../src/commands/serve.js";
import { processIo } from "../src/io.js";

const limits = { maxSequences: 4, maxQueue: 4, timeout: 600, stall: 60, grace: 0.2 };
await serveCommand(processIo(), process.argv[2]!, { host: "127.0.0.1", port: 0, ...limits });
