/** Frames of texts that tell what happened: short story, diary entry, news item. */
import type { Register } from "./register.js";

export const narrative: Register = {
  openings: `
{name} had {num} reasons to fear {topic}, and {anadj} {n} was the first of them.
{name} of house {num} found {topic} behind {anadj} {n} and could not {v} them alone.
{name} was {num} days from home when {topic} and {anadj} {n} changed the road.
{name} woke at bell {num}, thought of {topic}, and went to {v} the {adj} {n}.
{name} kept log {num} about {topic}, written beside {anadj} {n} that nobody wanted to {v}.
{name} paid {num} coins to hear of {topic} from {anadj} {n} merchant who {ivd} {adv}.
{name} carried {num} lanterns towards {topic} while {anadj} {n} {vd} the {ns} behind.
{name} lost bet {num} over {topic}, and with it {anadj} {n} and all the {ns}.
{name} signed page {num} and wrote of {topic}, the {adj} {n} and the {ns} of the valley.
{name} walked {num} steps before {topic} came in sight beyond the {adj} {n}.
{name} told story {num} that night, of {topic} and of {anadj} {n} that {ivd}.
{name} from gate {num} heard that {topic} would {v} the {adj} {ns} by morning.
`,
  bodies: `
The {adj} {n} {vd} the {ns} {adv}, and {name} could only watch.
Nobody near the {n} {ivd} until something {vd} the last of the {ns}.
At dusk {num} {ns} {ivd} {adv} beside the {adj} {n}, as {name} had feared.
Somewhere past {place}, {anadj} {n} {vd} the {n} and {ivd} without a word.
{name} {vd} the {n} {adv}; the {ns} answered with {anadj} silence.
By {day} the {ns} were {adj}, the {n} was gone, and {name} {ivd}.
It was {name} who {vd} the {adj} {n}, long before the {ns} {ivd}.
Under the {n} lay {num} {ns}, each one {adj}, each one {vp} by {name}.
The road to {place} {vd} them {adv}, for its {ns} were {adj}.
When the {n} {ivd}, two {ns} {vd} the {n} from {place}.
A voice {ivd} {adv} from the {n}, asking who {vd} the {ns}.
Old {name} {vd} the {ns} for {num} hours and then {ivd} like {anadj} {n}.
There, between the {adj} {n} and the {n}, {name} {ivd} {adv} for once.
In {place} they {v} every {adj} {n}, yet this one {vd} the {ns} first.
Before the {ns} could {iv}, {anadj} {n} {vd} what {name} had hidden.
For {num} nights {name} {vd} the {n} and {vd} the {ns} {adv}.
Then the {n} {ivd}, {adv} and without warning, and the {ns} {ivd} too.
What {name} {vd} was neither {n} nor {n} but something {adj} from {place}.
The youngest of the {ns} {vd} {anadj} {n} {adv} while {place} slept.
All that {day} the {n} {vd} {name}, {adv}, as {ns} do.
`,
  closings: `
In the end {topic} {vd} the {n}, and {name} {ivd} {adv}.
Since then no {n} in {place} may {v} {topic} without {anadj} {n}.
So ended the affair of {topic}: {num} {ns}, one {adj} {n}, and silence.
{name} never {vd} {topic} again, though the {ns} of {place} still {iv}.
Whoever comes to {place} hears of {topic} first and of the {adj} {n} last.
On {day} the {ns} {ivd} {adv}, and {topic} were forgotten for {num} years.
That was how {topic} came to {place}, {adv}, with {num} {adj} {ns}.
And {topic}? They {vd} the {n} {adv} and left {num} {ns} behind.
Nothing of {topic} remained but {anadj} {n} and {num} {ns} in {place}.
Ask in {place} about {topic}, and {anadj} {n} will {iv} {adv}.
The last page tells how {topic} {vd} {name} and the {num} {ns}.
Later, {name} said that {topic} had only {vd} {anadj} {n}.
`,
};
