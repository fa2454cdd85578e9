/** Frames of texts that argue or judge: essay, blog post, product review. */
import type { Register } from "./register.js";

export const essay: Register = {
  openings: `
{name} gave {num} points to {topic}, fewer than to {anadj} {n}, and was {adj}.
{name}, note {num}: on {topic}, {anadj} {n} and the habit to {v} both.
{name} tested {num} of them, and {topic} still {v} {anadj} {n} best.
{name} asked {num} people whether {topic} should {v} {anadj} {n}.
{name} argues on page {num} that {topic} are {adj} and {v} the {n}.
{name} put {num} days into {topic} and came back with {anadj} {n}.
{name} wrote {num} lines against {topic}, all of them {adj}, none about the {n}.
{name} bought set {num} and compared {topic} with {anadj} {n} from {place}.
{name} lists {num} myths on {topic}, beginning with the {adj} {n}.
{name} claims {num} readers, most of whom {v} {topic} and some {adj} {n}.
{name} opened box {num} expecting {topic} but found {anadj} {n} inside.
{name} spent {num} words on {topic}, so the {adj} {n} must wait.
`,
  bodies: `
{Ann} that {vs} {ns} {adv} is rarely {adj}, as {name} noted.
Most {ns} in {place} {v} the {n}, and {num} of them {iv}.
Consider {anadj} {n}: it {vs} the {ns}, yet never {vs} {name}.
Critics {v} the {adj} {n} {adv}, but {ns} deserve better.
What {vs} one {n} may {v} another, and {adj} {ns} know it.
Of {num} {ns} we tried, only the {adj} {n} {ivd} {adv}.
In {place} the {n} is {vp} {adv}, whereas {ns} are {adj}.
{name} {vd} the {ns} twice, and both times {anadj} {n} {ivd}.
One cannot {v} {anadj} {n} and {v} the {ns} on {day} as well.
The case for {ns} rests on {num} {adj} facts and one {n}.
Every {day} some {n} {vs} its {ns}, {adv} and for nothing.
Against this, {name} {vs} that {adj} {ns} always {iv}.
Where {ns} {iv}, the {n} is {adj}; where they {v}, it is not.
Prices in {place} rose by {num} for {ns} and fell for {anadj} {n}.
It helps to {v} the {n} {adv} before the {adj} {ns} do.
A second {n}, {vp} in {place}, {vd} only {num} {ns}.
Perhaps {ns} {v} us because the {n} looks so {adj} on {day}.
Compared with {anadj} {n}, the {ns} {v} {adv} and last longer.
My own {n} {vd} {num} {ns}, which {name} found {adj}.
Whoever {vs} {ns} for a living should {v} the {adj} {n} too.
`,
  closings: `
Judged {adv}, {topic} are {adj}, and the {n} is not.
For now I shall {v} {topic} and leave the {n} to {name}.
So {topic} stay, {num} {ns} go, and the {adj} {n} waits.
In short, {v} {topic} {adv} and {v} every {adj} {n}.
Between {topic} and {anadj} {n} the choice is {name}'s.
If {topic} {iv}, blame the {n} of {place}, not the {ns}.
That leaves {topic} where {name} {vd} them: near {anadj} {n}.
My verdict on {topic}: {num} of 9999, and one {adj} {n} extra.
Let others {v} {topic}; the {ns} of {place} are {adj} enough.
There is more on {topic} in {place}, next to the {adj} {n}.
Without {topic} we would {v} {num} {ns} {adv} for ever.
To {v} {topic} is to {v} {anadj} {n} with {adj} eyes.
`,
};
