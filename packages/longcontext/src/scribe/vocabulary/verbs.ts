/** Verbs with all their forms. Written for this package; `*` marks a doubled last consonant, `base/past/participle` an irregular verb. */

export interface Verb {
  readonly base: string;
  /** Third person singular of the present. */
  readonly s3: string;
  readonly past: string;
  readonly participle: string;
  readonly ing: string;
  /** Takes an object. */
  readonly trans: boolean;
}

const transitive = `
abandon accept admire adopt adore advise announce answer approach arrange ask assemble attach attack avoid balance banish bandage bathe
beg* bite/bit/bitten blame bless borrow bring/brought/brought brush burn bury buy/bought/bought call capture carry carve catch/caught/caught
celebrate chase choose/chose/chosen claim clean climb collect comfort command compare conceal copy count cover crush cure damage decorate
defend deliver demand deny describe deserve destroy detect discover dislike disturb drag* draw/drew/drawn dream drive/drove/driven drop*
dust eat/ate/eaten empty encourage enjoy enter envy escort examine exchange expect explore fear feed/fed/fed fetch fight/fought/fought
fill find/found/found finish fix fold follow forget/forgot/forgotten forgive/forgave/forgiven free freeze/froze/frozen gather greet guard
guide handle hang/hung/hung hate haunt hear/heard/heard heat help hide/hid/hidden hit/hit/hit hold/held/held hunt ignore imitate inherit
inspect interrupt invent invite join keep/kept/kept kick kiss know/knew/known lead/led/led leave/left/left lend/lent/lent lift like load lock
lose/lost/lost love make/made/made mark measure meet/met/met mend miss mock move name need notice obey observe offer open order
outlive overtake/overtook/overtaken own paint pass pay/paid/paid persuade photograph pity plan* plant polish praise prepare press promise
protect pull punish push question raise reach recognise refuse remember remove repair replace report rescue respect return reward ride/rode/ridden
ring/rang/rung rob* ruin save scatter see/saw/seen seek/sought/sought sell/sold/sold send/sent/sent shake/shook/shaken shelter show/showed/shown
sketch smell sniff steal/stole/stolen strike/struck/struck study surprise surround sweep/swept/swept take/took/taken teach/taught/taught
tease tell/told/told thank throw/threw/thrown tickle touch trade trust turn understand/understood/understood visit wake/woke/woken want warn
wash watch water wear/wore/worn weigh welcome win/won/won wrap* write/wrote/written
`;

const intransitive = `
arrive blush cough crawl cry dance die disappear doze faint fall/fell/fallen fly/flew/flown frown giggle glow grow/grew/grown hesitate hurry
kneel/knelt/knelt laugh limp linger march mumble pause relax rest rise/rose/risen run/ran/run shiver shout sigh sing/sang/sung sit/sat/sat
sleep/slept/slept smile sneeze snore speak/spoke/spoken stand/stood/stood stumble swim/swam/swum travel* tremble vanish wait walk wander weep/wept/wept
whisper wink yawn
`;

const doubled = new Set(["hit", "forget", "run", "sit", "swim", "win"]);

function thirdPerson(base: string): string {
  if (/(?:s|x|z|ch|sh|o)$/.test(base)) return `${base}es`;
  return /[^aeiou]y$/.test(base) ? `${base.slice(0, -1)}ies` : `${base}s`;
}

function regularPast(base: string): string {
  if (base.endsWith("e")) return `${base}d`;
  return /[^aeiou]y$/.test(base) ? `${base.slice(0, -1)}ied` : `${base}ed`;
}

function progressive(base: string): string {
  if (base.endsWith("ie")) return `${base.slice(0, -2)}ying`;
  return /[^e]e$/.test(base) ? `${base.slice(0, -1)}ing` : `${base}ing`;
}

function parse(entry: string, trans: boolean): Verb {
  const [word = "", past, participle] = entry.split("/");
  const base = word.replace("*", "");
  const stem = word.endsWith("*") || doubled.has(base) ? base + base.at(-1) : base;
  const regular = regularPast(stem);
  return {
    base,
    s3: thirdPerson(base),
    past: past ?? regular,
    participle: participle ?? regular,
    ing: progressive(stem),
    trans,
  };
}

const parseAll = (list: string, trans: boolean): Verb[] =>
  list
    .trim()
    .split(/\s+/)
    .map((entry) => parse(entry, trans));

export const TRANSITIVE_VERBS: readonly Verb[] = parseAll(transitive, true);
export const INTRANSITIVE_VERBS: readonly Verb[] = parseAll(intransitive, false);
export const VERBS: readonly Verb[] = [...TRANSITIVE_VERBS, ...INTRANSITIVE_VERBS];
