/** `llmeff study CONFIG` */
import { join, resolve } from "node:path";
import type { DeviceChoice } from "@llmeff/tensor";
import { InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import type { Io } from "../io.js";
import { loadStudy, onDevice } from "../study/load-study.js";
import { runStudy } from "../study/run-study.js";
import { runSweep } from "../study/run-sweep.js";

export interface StudyCommandOptions {
  out?: string;
  only?: string;
  sweep?: boolean;
  device?: DeviceChoice;
}

export async function studyCommand(io: Io, configPath: string, options: StudyCommandOptions): Promise<void> {
  const { only, sweep = false } = options;
  const loaded = await loadStudy(resolve(io.cwd, configPath));
  const study = options.device === undefined ? loaded : onDevice(loaded, options.device);
  const folder = resolve(io.cwd, options.out ?? join("runs", study.name));
  if (sweep && only !== undefined) {
    throw new UsageError("[study] a sweep runs all arms, so that all are searched alike; leave --only out.");
  }
  await interruptible(io, async (signal) => {
    try {
      if (sweep) await runSweep(io, study, `${folder}.sweep.json`, signal);
      else await runStudy(io, study, folder, only, signal);
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw error;
      throw new InterruptedError(
        `[study] interrupted; ${sweep ? "the runs that ended are kept" : "all is saved"}. Start the same command again to go on.`,
      );
    }
  });
}
