/** The command line: options, commands, exit codes. */
import { Command, CommanderError, Option } from "commander";
import { configForms, convertCommand, convertedDTypes } from "./commands/convert.js";
import { addEvalCommands } from "./commands/eval.js";
import { generateCommand } from "./commands/generate.js";
import { infoCommand } from "./commands/info.js";
import { serveCommand } from "./commands/serve.js";
import { studyCommand } from "./commands/study.js";
import { tokenizeCommand } from "./commands/tokenize.js";
import { tokenizerCommand } from "./commands/tokenizer.js";
import { trainCommand } from "./commands/train.js";
import { trainingDTypes } from "./config/training-schema.js";
import { exitCodes, InterruptedError, UsageError } from "./errors.js";
import { type Io, note, processIo } from "./io.js";
import {
  anyNumber,
  device,
  deviceHelp,
  fraction,
  logitBias,
  number,
  pair,
  portNumber,
  positiveInteger,
  positiveSeconds,
  seconds,
  wholeNumber,
} from "./option-values.js";
import { version } from "./version.js";

/**
 * Runs the command.
 *
 * @param argv - without the program's own name
 * @returns the exit code: 0, 1 for a failure, 2 for a command line or config that can't be used, 3 for an evaluation that lacks answers, 130 when interrupted
 *
 * @example
 * process.exitCode = await main(["info", "--json"]);
 */
export async function main(argv: readonly string[], io: Io = processIo()): Promise<number> {
  try {
    let code: number = exitCodes.ok;
    const program = buildProgram(io, (told) => {
      code = told;
    });
    await program.parseAsync(argv as string[], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    return report(io, error);
  }
}

function report(io: Io, error: unknown): number {
  const known = error instanceof Error;
  note(io, known ? error.message : String(error));
  if (known && io.env.LLMEFF_DEBUG === "1") note(io, stackOf(error));
  if (error instanceof InterruptedError) return exitCodes.interrupted;
  return error instanceof UsageError ? exitCodes.usage : exitCodes.failure;
}

function stackOf(error: Error): string {
  const own = error.stack ?? "";
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

const dtypeHelp = `${trainingDTypes.join(" or ")} parameters and activations, instead of the config's`;

/** @param done - is told the exit code of a command that ran to its end, where it isn't 0 always */
function buildProgram(io: Io, done: (code: number) => void): Command {
  const program = new Command("llmeff")
    .description(
      "Trains language models on a native engine, generates text, serves models, runs studies, and evaluates long contexts.",
    )
    .version(version())
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      getOutHelpWidth: () => io.stdout.columns ?? 80,
      getErrHelpWidth: () => io.stderr.columns ?? 80,
    })
    .showHelpAfterError("(llmeff --help lists the commands, llmeff COMMAND --help the options)")
    .exitOverride();
  // Commands inherit exitOverride and configureOutput when they are made by the program.
  program
    .command("train")
    .description("train a model as a JSON config says")
    .argument("<config>", "training config")
    .option("--out <dir>", "folder for metrics and checkpoints (default: runs/<name>)")
    .option("--resume", "go on from the newest checkpoint in the folder")
    .option("--steps <n>", "steps in all, instead of the config's", positiveInteger)
    .option("--seed <n>", "seed instead of the config's", wholeNumber)
    .option("--device <device>", deviceHelp, device)
    .addOption(new Option("--dtype <dtype>", dtypeHelp).choices(trainingDTypes))
    .option("--dry-run", "make a few steps, tell the memory and time that the run will take, and write nothing")
    .action((config, options) => trainCommand(io, config, options));
  program
    .command("generate")
    .description("write text with a trained model")
    .argument("<model>", "folder of a run, one of its checkpoints, or a Hugging Face folder")
    .option("--prompt <text>", "what the text begins with")
    .option("--prompts <file>", 'several: a file with one a line, or .jsonl with a field "prompt"; gives lines of JSON')
    .option("--tokens <n>", "tokens to write", positiveInteger, 200)
    .option("--samples <n>", "texts for each prompt, with seeds one after another (default: 1)", positiveInteger)
    .option(
      "--temperature <t>",
      "0: always the likeliest token (default: 1)",
      number("a number ≥ 0", (t) => t >= 0),
    )
    .option("--top-k <k>", "only the k likeliest tokens", positiveInteger)
    .option(
      "--top-p <p>",
      "only the likeliest tokens with this much probability",
      number("a number in (0, 1]", (p) => p > 0 && p <= 1),
    )
    .option(
      "--min-p <p>",
      "only tokens at least this share as likely as the likeliest",
      number("a number in [0, 1]", (p) => p >= 0 && p <= 1),
    )
    .option(
      "--repetition-penalty <r>",
      "divides the scores of tokens seen before, in the prompt too (default: 1)",
      number("a positive number", (r) => r > 0),
    )
    .option("--presence-penalty <x>", "taken off the scores of tokens written before (default: 0)", anyNumber)
    .option("--frequency-penalty <x>", "taken off as often as a token was written before (default: 0)", anyNumber)
    .option("--logit-bias <id=x...>", "added to the score of a token; -Infinity bans it", logitBias)
    .option("--stop <text...>", "the text ends before the first of these")
    .option("--seed <n>", "the same seed writes the same text (default: 0)", wholeNumber)
    .option("--json", "the text as a line of JSON")
    .option(
      "--log-probs <n>",
      "lines of JSON with the log-probability of each token and of the n likeliest",
      wholeNumber,
    )
    .option("--batch <n>", "texts written at a time (default: 16)", positiveInteger)
    .option("--draft <model>", "small model of the same tokenizer that drafts what the model then checks")
    .option("--draft-tokens <n>", "tokens that it drafts at a time (default: 4)", positiveInteger)
    .option("--device <device>", deviceHelp, device)
    .action((model, options) => generateCommand(io, model, options));
  program
    .command("convert")
    .description("write a model as a Hugging Face folder, or as a model file of llama2.c")
    .argument("<source>", "folder of a run, one of its checkpoints, a Hugging Face folder, or a .bin file of llama2.c")
    .argument("<target>", "new folder, or a .bin file")
    .option("--tokenizer <file>", "tokenizer.json, or a tokenizer .bin of llama2.c, to go with it")
    .addOption(new Option("--dtype <dtype>", "of the weights (default: as they are)").choices(convertedDTypes))
    .option("--max-shard-bytes <n>", "most bytes of a file of weights (default: 5e9)", positiveInteger)
    .addOption(
      new Option(
        "--config-form <form>",
        "of config.json: old, which all versions of transformers read, or new",
      ).choices(configForms),
    )
    .action((source, target, options) => convertCommand(io, source, target, options));
  program
    .command("tokenizer")
    .description("learn a byte-level BPE tokenizer from texts and write it as a tokenizer.json")
    .argument("<texts...>", "plain or gzip text files")
    .requiredOption("--vocab-size <n>", "tokens in all, 256 bytes and the special ones included", positiveInteger)
    .requiredOption("--out <file>", "the tokenizer.json")
    .option("--special <tokens...>", "tokens that mark something, such as <|end|>")
    .option("--min-frequency <n>", "how often a pair must occur to become a token (default: 2)", positiveInteger)
    .action((texts, options) => tokenizerCommand(io, texts, options));
  program
    .command("tokenize")
    .description("write documents as token shards, for training on more of them than memory holds")
    .argument(
      "<corpus...>",
      "text (plain or gzip; each file a document), .jsonl, .ndjson or .json with a record a line (also .gz), or .parquet",
    )
    .requiredOption("--tokenizer <t>", "character, byte, or a tokenizer.json")
    .requiredOption("--out <dir>", "new folder for the shards and corpus.json")
    .option("--eos <token>", "token of the tokenizer that ends documents (default: one of its own)")
    .option("--field <name>", "field or column of the text (default: text)")
    .option("--separator <text>", "what divides text files into documents, such as $'\\n\\n'")
    .option("--valid-fraction <x>", "share of the documents that is held out (default: 0.01)", fraction)
    .option(
      "--split <train,valid>",
      "or values of a field that tell which documents are for training and which are held out",
      pair,
    )
    .option("--split-field <name>", "that field (default: split)")
    .option("--max-document-tokens <n>", "cut longer documents into several", positiveInteger)
    .option("--max-shard-tokens <n>", "begin a new shard after so many tokens (default: 268,435,456)", positiveInteger)
    .action((corpus, options) => tokenizeCommand(io, corpus, options));
  program
    .command("study")
    .description("train the arms of a study side by side and write a report")
    .argument("<config>", "study config")
    .option("--out <dir>", "folder for the report and all runs (default: runs/<name>)")
    .option("--only <arm>", "only the arm of this name (ARM or PART/ARM)")
    .option("--device <device>", deviceHelp, device)
    .addOption(
      new Option("--sweep", "try every learning rate of every arm instead, and keep the best beside the config"),
    )
    .action((config, options) => studyCommand(io, config, options));
  program
    .command("serve")
    .description("answer requests over HTTP as OpenAI's API does: chat completions and completions")
    .argument("<model>", "folder of a run, one of its checkpoints, or a Hugging Face folder")
    .option("--host <address>", "address to listen on; 0.0.0.0 for all of this machine", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 for a free one", portNumber, 8000)
    .option("--name <name>", "what requests call the model (default: the name of its folder)")
    .option("--device <device>", deviceHelp, device)
    .option("--max-sequences <n>", "answers that are written at a time", positiveInteger, 16)
    .option("--max-queue <n>", "answers that may wait; further requests are told to come back", wholeNumber, 128)
    .option("--max-context <n>", "tokens of prompt and answer together (default: the model's)", positiveInteger)
    .option(
      "--max-body <bytes>",
      "of a request (default: 32 for a token of context, at least 256 KiB)",
      positiveInteger,
    )
    .option("--timeout <seconds>", "for a reply, waiting included", positiveSeconds, 600)
    .option("--stall <seconds>", "for a client to read what it was sent of a stream", positiveSeconds, 60)
    .option("--grace <seconds>", "for replies that are on their way when it is to end", seconds, 10)
    .option("--key-env <name>", "environment variable with the key that requests must carry (default: LLMEFF_API_KEY)")
    .option("--cors <origin>", "web pages that may ask, such as https://example.org, or * (default: none)")
    .action((model, options) => serveCommand(io, model, options));
  addEvalCommands(program, io, done);
  program
    .command("info")
    .description("what runs here: versions, processor, GPUs, instruction sets, threads, memory, native binary")
    .option("--json", "as JSON")
    .action((options) => infoCommand(io, options));
  return program;
}
