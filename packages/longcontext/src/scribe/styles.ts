/** Styles: remarks that open and close a text, and words that a style puts in place of others. */

export interface Style {
  /** Said after the first sentence. */
  readonly openers: readonly string[];
  /** Said before the last. */
  readonly closers: readonly string[];
  /** Words of the frames, not of the slots, that the style replaces. */
  readonly words: Readonly<Record<string, string>>;
}

const lines = (text: string): string[] => text.trim().split("\n");

export const STYLES = {
  plain: { openers: [], closers: [], words: {} },
  formal: {
    openers: lines(`
It must be put on record.
The facts are as follows.
We beg leave to report.
Due notice is hereby given.`),
    closers: lines(`
This concludes the present statement.
Further inquiries are welcome.
The foregoing is certified correct.
We remain at your disposal.`),
    words: {
      while: "whilst",
      until: "pending the day",
      I: "this author",
      gone: "absent",
      ask: "request",
      must: "are obliged to",
    },
  },
  playful: {
    openers: lines(`
Hold on to your socks!
Guess what came next!
Tickle my elbow, it is true!
Ready, steady, splash!`),
    closers: lines(`
Wiggle your toes at that!
Hop, skip, the end is near!
Giggles all round, please!
Now blow a raspberry!`),
    words: { the: "the dear", silence: "hush-a-bye", every: "every single", road: "zigzag road", never: "never ever" },
  },
  archaic: {
    openers: lines(`
Hearken now, good people.
Thus was it told of yore.
Lo, mark ye these words.
Verily it came to pass.`),
    closers: lines(`
So say the elder scrolls.
Mark it well, gentle reader.
Here the chronicle falters.
Fare ye well anon.`),
    words: {
      you: "ye",
      your: "thy",
      before: "ere",
      nothing: "naught",
      often: "oft",
      over: "o'er",
      never: "ne'er",
      was: "wert",
    },
  },
  technical: {
    openers: lines(`
Notation follows section two.
All units are metric.
Input was sampled once.
See figure one for layout.`),
    closers: lines(`
Error bars are omitted.
The procedure is reproducible.
Calibration data are attached.
No outlier was removed.`),
    words: {
      about: "with respect to",
      near: "adjacent to",
      thing: "component",
      once: "in one pass",
      always: "deterministically",
    },
  },
  gloomy: {
    openers: lines(`
It rained, of course.
No comfort was to be had.
Everything ends in dust.
Nobody expected any good.`),
    closers: lines(`
The rain has not stopped.
Only shadows remain now.
It would not get better.
Hope went out like a match.`),
    words: {
      and: "and, alas,",
      still: "hopelessly",
      good: "doomed",
      always: "to the bitter end",
      morning: "grey morning",
    },
  },
  breathless: {
    openers: lines(`
You will not believe it!
Quick, listen to this!
Oh, it gets wilder!
I can hardly type!`),
    closers: lines(`
I need to sit down!
Just wow, wow, wow!
My heart is still racing!
Call me this instant!`),
    words: { but: "but wait,", every: "simply every", still: "somehow still", when: "just when", very: "totally" },
  },
  laconic: {
    openers: lines(`
Short version.
Facts only.
So it was.
Enough said.`),
    closers: lines(`
Done.
That was it.
No more.
End.`),
    words: { perhaps: "maybe", because: "as", without: "sans", between: "amid" },
  },
} as const satisfies Record<string, Style>;

export type StyleName = keyof typeof STYLES;

export const STYLE_NAMES = Object.keys(STYLES) as StyleName[];

/** The style's words put into the fixed text of a frame. */
export function restyle(style: Style): (text: string) => string {
  const words = Object.keys(style.words);
  if (words.length === 0) return (text) => text;
  const pattern = new RegExp(`\\b(?:${words.join("|")})\\b`, "g");
  return (text) => text.replace(pattern, (word) => style.words[word] ?? word);
}
