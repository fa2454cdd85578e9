/** What a report says about the machine that its numbers come from. */
import { arch, availableParallelism, cpus, platform, release, totalmem } from "node:os";
import type { Fact } from "./model.js";

/** Processor, cores, memory, system and Node.js of this machine, as facts for a report. */
export function machineFacts(): Fact[] {
  const processor = cpus()[0]?.model.trim().replace(/\s+/g, " ");
  return [
    { name: "Processor", value: processor || "unknown" },
    { name: "Usable cores", value: availableParallelism() },
    { name: "Memory", value: (totalmem() / 2 ** 30).toFixed(1), unit: "GiB" },
    { name: "System", value: `${platform()} ${release()}, ${arch()}` },
    { name: "Node.js", value: process.versions.node },
  ];
}
