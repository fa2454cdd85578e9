/** `llmeff eval …` */
import { TASK_GROUPS, TASKS, tokensLabel } from "@llmeff/longcontext";
import { LlmeffError, OptionError } from "@llmeff/native/errors";
import { type Command, Option } from "commander";
import { UsageError } from "../errors.js";
import { nllCommand } from "../eval/nll.js";
import { header, jsonObject, lengthList, nameList, prices, several, threshold, tokenCount } from "../eval/options.js";
import {
  checkCommand,
  compareCommand,
  generateSetCommand,
  importCommand,
  importFormats,
  reportCommand,
  scoreCommand,
} from "../eval/other-commands.js";
import { estimateCommand, type RunCommandOptions, runCommand } from "../eval/run.js";
import { setDefaults } from "../eval/sample-source.js";
import { type TextsCommandOptions, textsCommand } from "../eval/write-texts.js";
import type { Io } from "../io.js";
import { device, deviceHelp, number, positiveInteger, wholeNumber } from "../option-values.js";

const positive = number("a positive number", (value) => value > 0);
const share = number("a number in 0..1", (value) => value >= 0 && value <= 1);
const temperature = number("a number ≥ 0", (value) => value >= 0);

/**
 * Adds the commands to the program.
 *
 * @param done - is told the exit code of a command that ran to its end
 */
export function addEvalCommands(program: Command, io: Io, done: (code: number) => void): void {
  const evaluation = program
    .command("eval")
    .description("how well a model reads long contexts: any endpoint, or a model trained here");
  const action =
    <A extends unknown[]>(run: (...args: A) => Promise<number>) =>
    async (...args: A): Promise<void> =>
      done(await run(...args).catch(asUsage));

  withSet(evaluation.command("generate").description("write a set of samples"))
    .requiredOption("--out <file>", "the samples, as JSON lines")
    .option("--json", "as JSON")
    .action(action((options) => generateSetCommand(io, options)));
  withRun(
    withSet(evaluation.command("estimate").description("requests, tokens and money of a run; sends nothing")),
  ).action(action((options: RunCommandOptions) => estimateCommand(io, options)));
  withRun(
    withSet(
      evaluation
        .command("run")
        .description("ask a model every sample, score the answers, write a report; goes on where it stopped"),
    ),
  ).action(action((options: RunCommandOptions) => runCommand(io, options)));
  withAsking(
    evaluation
      .command("texts")
      .description("have a model write the replies of MRCR's chats, for --texts; goes on where it stopped"),
  )
    .requiredOption("--model <model>", "http://host/v1, http://host/v1#name or local:RUN")
    .requiredOption("--out <file>", "the texts, as JSON lines; those that are there already stay")
    .option(
      "--per-key <n>",
      "texts of each topic in each format and style: as many as needles at least",
      positiveInteger,
      8,
    )
    .option("--topics <n>", "how many topics", positiveInteger, 16)
    .option("--formats <names>", "default: poem,letter,essay,recipe", nameList)
    .option("--styles <names>", "default: plain", nameList)
    .option("--thinking <tokens>", "tokens for thinking, beside those for the text", tokenCountOrZero, 0)
    .option("--json", "as JSON")
    .action(action((options: TextsCommandOptions) => textsCommand(io, options)));
  evaluation
    .command("score")
    .description("score the answers of a run again, without asking anybody")
    .argument("<folder>", "folder of a run")
    .option("--set <file>", "its samples (default: samples.jsonl in the folder)")
    .option("--json", "as JSON")
    .action(action((folder, options) => scoreCommand(io, folder, options)));
  withErrors(evaluation.command("report").description("write the report of one run, or of several together"))
    .argument("<folders...>", "folders of runs")
    .option("--out <file>", "the page (default: report.html in the first folder); .json and .csv go beside it")
    .option("--threshold <score>", "what an effective length must hold", share, 0.856)
    .option("--fail-under <task=score[@length]>", "exit with 1 below it; may be repeated", several(threshold))
    .option("--json", "as JSON")
    .action(action((folders, options) => reportCommand(io, folders, options)));
  evaluation
    .command("compare")
    .description("differences between models on the same samples")
    .argument("<folders...>", "folders of runs")
    .option("--json", "as JSON")
    .action(action((folders, options) => compareCommand(io, folders, options)));
  evaluation
    .command("nll")
    .description("how well local models predict documents, by position: curves, power laws, a report")
    .argument(
      "<files...>",
      "documents: text files, one each; .jsonl, .json and .parquet, one a record; all but .parquet also as .gz",
    )
    .option(
      "--model <model>",
      "local:RUN, or local:FOLDER of a Hugging Face model; may be repeated",
      several((text) => text),
      [],
    )
    .option("--out <folder>", "where nll.html and nll.json go", "runs/nll")
    .option("--tokens <n>", "only the first tokens of each document (default: what the models take)", tokenCount)
    .option("--limit <n>", "only the first documents", positiveInteger)
    .option("--split <name>", 'only records whose field "split" says so')
    .option("--field <name>", "where a record has its text", "text")
    .option("--positions <tokens>", "where the curve has points (default: 128, doubled up to the end)", lengthList)
    .option("--device <device>", deviceHelp, device)
    .option("--json", "as JSON")
    .action(action((files, options) => nllCommand(io, files, options)));
  evaluation
    .command("import")
    .description("samples or results of other programs")
    .addArgument(program.createArgument("<format>", "what the file is").choices(importFormats))
    .argument("<file>")
    .requiredOption("--out <path>", "a file for samples, a folder for results")
    .option("--task <name>", "ruler: RULER's name of the task")
    .option("--model <name>", "lm-eval, niah: the model that the results are of")
    .option("--columns <prompt,answer,hash>", "mrcr-csv: names of the columns", nameList)
    .option("--json", "as JSON")
    .action(action((format, file, options) => importCommand(io, format, file, options)));
  evaluation
    .command("check")
    .description("solve every sample of a set again from its prompt alone")
    .argument("<file>", "samples, as JSON lines")
    .option("--json", "as JSON")
    .action(action((file, options) => checkCommand(io, file, options)));
}

function withSet(command: Command): Command {
  const groups = Object.keys(TASK_GROUPS).join(", ");
  return command
    .addOption(
      new Option("--task <names>", "tasks or groups, separated by commas; the list is below")
        .argParser(nameList)
        .default(setDefaults.task, setDefaults.task.join()),
    )
    .addOption(
      new Option("--lengths <tokens>", "prompt and answer together: 4k,32k,1M (k = 1024)")
        .argParser(lengthList)
        .default(setDefaults.lengths, setDefaults.lengths.map(tokensLabel).join()),
    )
    .option("--samples <n>", "samples of each task at each length", positiveInteger, setDefaults.samples)
    .option("--seed <n>", "the same seed makes the same samples", wholeNumber, setDefaults.seed)
    .option(
      "--thinking <tokens>",
      "tokens for thinking, beside those for the answer",
      tokenCountOrZero,
      setDefaults.thinking,
    )
    .option(
      "--texts <file>",
      "texts for the chats of mrcr_…, as `llmeff eval texts` has them written, instead of templates",
    )
    .option("--haystack <file>", "text in which needles are hidden, instead of generated prose")
    .option("--tokenizer <name>", "auto, utf8-bytes, bytes/4, or a tokenizer.json", setDefaults.tokenizer)
    .addHelpText(
      "after",
      `\nTasks:\n${TASKS.map(({ name, about }) => `  ${name.padEnd(22)} ${about}`).join("\n")}\nGroups: ${groups}`,
    );
}

function withRun(command: Command): Command {
  return withAsking(withErrors(command))
    .option(
      "--model <model>",
      "http://host/v1, http://host/v1#name, local:RUN, mock:oracle; may be repeated",
      several((text) => text),
      [],
    )
    .option("--set <file>", "samples to ask, instead of generated ones")
    .option("--out <folder>", "where results and report go", "runs/eval")
    .option("--trials <n>", "times that each sample is asked", positiveInteger, 1)
    .option(
      "--temperature <t>",
      "default, which leaves it to the model, or a number",
      (text) => (text === "default" ? null : temperature(text)),
      0,
    )
    .option("--limit <n>", "only the first samples of the set", positiveInteger)
    .option("--cache <folder>", "replies to share with other runs (default: cache in the run's folder)")
    .option("--no-cache", "keep no replies")
    .option("--retry-errors", "ask again what ended in an error, too")
    .option("--only-failed", "ask again what ended in an error, and nothing else")
    .addOption(
      new Option("--tools <state>", "whether the model may use tools: said in the report")
        .choices(["off", "on"])
        .default("off"),
    )
    .option("--fail-under <task=score[@length]>", "exit with 1 below it; may be repeated", several(threshold))
    .option("--json", "as JSON");
}

/** What every command has that asks a model. */
function withAsking(command: Command): Command {
  return command
    .option(
      "--concurrency <n>",
      "most requests at a time (default: 64, of which an endpoint gets 4 at first; 8 in one batch of a local model)",
      positiveInteger,
    )
    .option("--rpm <n>", "most requests a minute", positive)
    .option("--tpm <n>", "most tokens a minute", positive)
    .option("--retries <n>", "tries after the first", wholeNumber, 5)
    .option("--timeout <seconds>", "until the first byte of a reply (default: 1800)", positive)
    .option("--price <in,out[,cached]>", "money for a million tokens", prices)
    .option("--max-cost <money>", "stop before it costs more", positive)
    .option("--max-tokens <n>", "stop before it takes more, prompts and replies together", tokenCount)
    .addOption(new Option("--api <api>", "which API the endpoint has (default: chat)").choices(["chat", "completions"]))
    .option("--key-env <name>", "environment variable of the key (default: LLMEFF_API_KEY; OPENAI_API_KEY for OpenAI)")
    .option("--header <name: value>", "further header; may be repeated", several(header))
    .option("--body <json>", "further fields of every request", jsonObject)
    .option("--no-stream", "ask for replies in one piece")
    .option("--context <tokens>", "the model's context: what is longer isn't asked", tokenCount)
    .option("--device <device>", `local models: ${deviceHelp}`, device);
}

function withErrors(command: Command): Command {
  return command.addOption(
    new Option("--errors <rule>", "errors and prompts that are too long: left out of means, or counted as 0")
      .choices(["exclude", "zero"])
      .default("exclude"),
  );
}

function tokenCountOrZero(text: string): number {
  return text.trim() === "0" ? 0 : tokenCount(text);
}

/** What the library refuses as an option came from the command line here. */
function asUsage(error: unknown): never {
  const refused =
    error instanceof OptionError ||
    (error instanceof LlmeffError && /^ERR_(?:BUDGET_TOO_SMALL|HAYSTACK_TOO_SHORT)$/.test(error.code));
  throw refused ? new UsageError((error as Error).message, { cause: error }) : error;
}
