/** What a reply is worth that knows only the form of the answer, sample by sample. */
import type { Message, Sample } from "../sample.js";
import type { TextKey } from "../scribe/text.js";
import { IDK_CHANCE } from "../stats/idk-summary.js";
import { latentListChance, mrcrFloors } from "../stats/noise-floors.js";
import type { View } from "../tasks/latent-list/program.js";
import { request } from "../tasks/mrcr/requests.js";

const DRAWS = 32;

export interface Floor {
  floor?: number;
  /** MRCR: of any reply of the chat; `floor` is that of the replies to the same request. */
  floorAll?: number;
}

/** Empty for tasks without one: a guess of theirs scores nearly nothing. */
export function floorOf(sample: Sample): Floor {
  const { task, meta, target } = sample;
  if (task === "idk") return { floor: IDK_CHANCE };
  if (task === "latent_list" && Array.isArray(meta.core)) {
    const program = { core: meta.core as string[], view: meta.view as View, target: target as string };
    return { floor: latentListChance([program], { draws: DRAWS }) };
  }
  return task === "mrcr" && meta.layout === "chat" ? ofChat(sample) : {};
}

function ofChat({ messages, meta, target }: Sample): Floor {
  const { hash, key } = meta as unknown as { hash: string; key: TextKey };
  const wanted = request(key);
  const replies = messages.flatMap(({ role, content }, i) =>
    role === "assistant" ? [{ content, relevant: asks(messages[i - 1], wanted) }] : [],
  );
  const relevant = replies.filter((reply) => reply.relevant).map(({ content }) => content);
  if (relevant.length === 0) return {};
  const answer = { hash, reply: (target as string).slice(hash.length) };
  const floors = mrcrFloors(answer, { all: replies.map(({ content }) => content), relevant }, { draws: DRAWS });
  return { floor: floors.floorRelevant, floorAll: floors.floorAll };
}

function asks(message: Message | undefined, wanted: string): boolean {
  return message?.role === "user" && message.content.endsWith(wanted);
}
