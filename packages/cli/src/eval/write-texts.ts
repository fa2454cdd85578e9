/** `llmeff eval texts`: has a model write the replies of MRCR's chats. */
import { resolve } from "node:path";
import {
  estimate,
  TEXT_REPLY_TOKENS,
  type TextPoolSummary,
  TWEAKS,
  textKeys,
  textRequest,
  writeTextPool,
} from "@llmeff/longcontext";
import { createProgress, formatCompact, formatNumber } from "@llmeff/report";
import { exitCodes, InterruptedError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, note, print } from "../io.js";
import { type AskingOptions, describeEstimate, endpointOf, spendingOf } from "./asking.js";
import { openModel } from "./open-model.js";

export interface TextsCommandOptions extends AskingOptions {
  model: string;
  out: string;
  topics: number;
  formats?: string[];
  styles?: string[];
  perKey: number;
  thinking: number;
  json?: boolean;
}

/** @returns the exit code */
export async function textsCommand(io: Io, options: TextsCommandOptions): Promise<number> {
  const { topics, formats, styles, perKey, thinking, price } = options;
  const path = resolve(io.cwd, options.out);
  const keys = textKeys({ topics, ...(formats && { formats }), ...(styles && { styles }) });
  return interruptible(
    io,
    async (signal) => {
      const opened = await openModel(io, options.model, options);
      const total = keys.length * perKey;
      const progress = createProgress({ stream: io.stderr, total, label: "texts", env: io.env });
      try {
        const promptTokens = Math.max(...keys.map((key) => textRequest(key, TWEAKS[0]).length / 4));
        const text = { samples: 1, promptTokens: Math.ceil(promptTokens), reserveTokens: TEXT_REPLY_TOKENS + thinking };
        const requests = describeEstimate(estimate(text, total, price));
        note(io, `${formatNumber(total)} texts, if none is there yet and every first reply is taken: ${requests}`);
        const summary = await writeTextPool(opened.model, path, {
          ...endpointOf(opened, options),
          ...{ keys, perKey, thinkingBudget: thinking, spending: spendingOf(options), signal },
          onEntry: (_, { missing, usage }) =>
            progress.update(total - missing, {
              tokens: usage.promptTokens + usage.completionTokens,
              note: price === undefined ? "" : `cost ${usage.cost.toFixed(4)}`,
            }),
        });
        progress.finish();
        tell(io, path, summary, options.json ?? false);
        return summary.missing === 0 ? exitCodes.ok : exitCodes.incomplete;
      } finally {
        progress.finish();
        await opened.model.close?.();
      }
    },
    "finishing the texts under way",
  );
}

function tell(io: Io, path: string, summary: TextPoolSummary, json: boolean): void {
  const { asked, texts, missing, dropped, usage, stopped } = summary;
  if (json) print(io, JSON.stringify({ path, ...summary }));
  else {
    const cost = usage.cost > 0 ? `, cost ${usage.cost.toFixed(4)}` : "";
    const tokens = `${formatCompact(usage.promptTokens)} prompt and ${formatCompact(usage.completionTokens)} completion tokens${cost}`;
    print(io, `${formatNumber(texts)} texts (${asked} replies now; ${tokens} in all): ${path}`);
  }
  if (dropped > 0) note(io, `[eval] texts that broke a rule: ${formatNumber(dropped)}; moved to ${path}.dropped.`);
  if (stopped === "interrupted") {
    throw new InterruptedError(
      `[eval] interrupted; ${missing} texts are missing. Start the same command again to go on.`,
    );
  }
  if (stopped === "spending")
    note(io, `[eval] stopped by --max-cost or --max-tokens with ${missing} texts missing; raise them to go on.`);
}
