/** Frames of verse: poem and riddle. Body lines end in `{rhyme}`; the stanza decides which lines share a class. */
import type { Register } from "./register.js";

export const verse: Register = {
  openings: `
{name} has {num} songs on {topic}, and {anadj} {n} in each,
{name} rang bell {num} for {topic}, and the {adj} {n} {ivd},
{name} saw {num} ghosts of {topic} {v} {anadj} {n},
{name} knows verse {num}, where {topic} {v} the {adj} {ns},
{name} hid verse {num} of {topic} under {anadj} {n},
{name} begs {num} times: who, if not {topic}, could {v} {anadj} {n},
{name} lit lamp {num} when {topic} began to {v} the {adj} {n},
{name} dreams for {num} nights that {topic} {v} {anadj} {n},
{name} drew {num} cards, all of {topic}, beside {anadj} {n},
{name} sold rhyme {num} on {topic} for the price of {anadj} {n},
{name} crossed {num} hills with {topic} and {anadj} {n} in mind,
{name} asks riddle {num}: what have {topic} that {anadj} {n} has not,
`,
  bodies: `
the {adj} {n} {vd} the {rhyme},
and {adv} {vd} the {n} and the {rhyme},
no {n} shall {v} so {adj} {arhyme},
where {num} {ns} {ivd} by the {rhyme},
{name} {vd} the {n} for the {rhyme},
while {adj} {ns} {v} every {rhyme},
a {adv} {vp} {n} with {arhyme},
from {place} came the {n} and its {rhyme},
it {ivs} like the {n} of the {rhyme},
with {ns} as {adj} as {arhyme},
and {name} {vs} {adv} the {rhyme},
on {day} the {n} will {v} the {rhyme},
how {adv} {ns} {iv} at the {rhyme},
or {v} the {adj} {n} of the {rhyme},
between the {n} and the {adj} {rhyme},
the {ns} of {place} {v} {arhyme},
and {num} {ns} {v} the {adj} {rhyme},
I {v} the {n}, you {v} the {rhyme},
`,
  closings: `
So sleep, {topic}, till {anadj} {n} {ivs} in {place}.
And that, of {topic}, is all the {adj} {n} could {v}.
Then {topic} {vd} the {n}, and the {ns} {ivd}.
Now tell me, {topic}: who {vd} the {adj} {n}?
For {topic} {iv} {adv} where no {n} can {v}.
O {topic}, {v} the {n}, and {v} me {adv}!
Let {topic} {v} the {adj} {n} till {day}.
And still {topic} {v} the {ns} of {place}.
Sing, {topic}, of {name}, who {vd} {anadj} {n}.
Count {num} {ns}, and {topic} will {iv} {adv}.
Thus {topic} {vd} {name} and her {adj} {n}.
What {topic} {v}, no {n} of {place} may {v}.
`,
};
