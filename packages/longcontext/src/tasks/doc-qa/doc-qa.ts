/** Questions on documents (RULER's `qa`), about people, firms and places that do not exist. */
import type { Random } from "@llmeff/data";
import { pick, streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { TextUnits } from "../../tokens/budget.js";
import { type Placement, positionsFor } from "../../tokens/placement.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { FlatContext } from "../flat-context.js";
import type { Fact } from "../idk/story.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { DOCUMENT_ATTRIBUTES, type EntityKind, PASTIMES } from "./attributes.js";
import { type Entity, factsOf, fillerDocuments, World, writeDocument } from "./encyclopaedia.js";

export interface DocQaParams {
  /** 1 (default) asks for an attribute, 2 for an attribute of a person or place that another document names. */
  hops?: 1 | 2;
  /**
   * Asks instead which person has a certain pastime: `true` in the words of the document, `false` in other words. Two samples that differ
   * in this alone have the same documents, so the difference of their scores is what matching words was worth.
   */
  literal?: boolean;
  placement?: Placement;
}

export interface DocQaMeta extends SampleMeta {
  hops: 1 | 2;
  literal: boolean | null;
  /** Of the relevant documents. */
  facts: Fact[];
  /** Depth of each of them in percent. */
  depths: number[];
}

interface Problem {
  entities: Entity[];
  question: string;
  answer: string;
  /** A value that filler must not tell. */
  barred?: string;
}

const RESERVE = 64;
const KINDS = ["person", "firm", "place"] as const satisfies readonly EntityKind[];
const INTRODUCTION = "Below are documents of an encyclopaedia. Answer the question after them from these documents.";

function oneHop(random: Random, world: World): Problem {
  const kind = pick(random, KINDS);
  const entity = world.newEntity(kind, world.newName(kind));
  const { name } = pick(random, DOCUMENT_ATTRIBUTES[kind]);
  return {
    entities: [entity],
    question: `What is the ${name} of ${entity.name}?`,
    answer: entity.values.get(name)!,
  };
}

function twoHops(random: Random, world: World): Problem {
  const kind = pick(random, ["firm", "place"] as const);
  const first = world.newEntity(kind, world.newName(kind));
  const bridge = pick(
    random,
    DOCUMENT_ATTRIBUTES[kind].filter(({ refersTo }) => refersTo !== undefined),
  );
  const second = world.newEntity(bridge.refersTo!, first.values.get(bridge.name)!);
  const { name } = pick(random, DOCUMENT_ATTRIBUTES[bridge.refersTo!]);
  return {
    entities: random.shuffle([first, second]),
    question: `What is the ${name} of the ${bridge.name} of ${first.name}?`,
    answer: second.values.get(name)!,
  };
}

function byPastime(random: Random, world: World, literal: boolean): Problem {
  const [deed, paraphrase] = pick(random, PASTIMES);
  const entity = world.newEntity("person", world.newName("person"), { pastime: deed });
  return {
    entities: [entity],
    question: `Which person ${literal ? deed : paraphrase}?`,
    answer: entity.name,
    barred: deed,
  };
}

/** A question whose answer one or two of many documents give. Complexity is the number of relevant documents. */
export function docQa(options: SampleOptions, params: DocQaParams = {}): Sample<string[], DocQaMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { hops = 1, literal, placement = "uniform" } = params;
  requireInteger("doc_qa", "hops", hops, 1, 2);
  const kind = literal === undefined ? `hops-${hops}` : "pastime";
  const stream = (purpose: string): Random => streamFor(seed, "doc_qa", index, `${kind}/${purpose}`);
  const random = stream("relevant");
  const world = new World(stream("names"));
  const problem =
    literal === undefined ? (hops === 1 ? oneHop : twoHops)(random, world) : byPastime(random, world, literal);
  const documents = problem.entities.map((entity) => writeDocument(random, entity));
  const positions = positionsFor("doc_qa", placement, documents.length, stream("placement"));
  const filler = fillerDocuments(stream("filler"), world, problem.barred);
  const units = new TextUnits(() => filler.next().value as string, tokenizer, "\n\n");
  const context = new FlatContext(documents, positions, units, "\n\n");
  const usedHops = literal === undefined ? hops : 1;
  return assembleSample<string[], Omit<DocQaMeta, keyof SampleMeta>>({
    task: "doc_qa",
    options,
    params: { hops: usedHops, literal: literal ?? null, placement },
    complexity: documents.length,
    units,
    reserve: RESERVE,
    target: [problem.answer],
    render: (selection) => [
      {
        role: "user",
        content: context.pieces(`${INTRODUCTION}\n\n`, selection, `\n\nQuestion: ${problem.question}\nAnswer:`),
      },
    ],
    meta: ({ selection }) => ({
      hops: usedHops,
      literal: literal ?? null,
      facts: problem.entities.flatMap(factsOf),
      depths: context.depths(selection, tokenizer),
    }),
  }) as Sample<string[], DocQaMeta>;
}
