/** Frames of texts addressed to someone: letter, email, speech. */
import type { Register } from "./register.js";

export const letter: Register = {
  openings: `
{name}, room {num}, asked me to tell you of {topic} and of {anadj} {n} that {ivd}.
{name} of list {num} sends greetings, and news of {topic} with {anadj} {n} besides.
{name} and {num} friends of {topic} thank you for the {adj} {n} you {vd}.
{name} holds ticket {num}, so let me speak of {topic} before {anadj} {n} {ivd}.
{name}, file {num}: you will have heard that {topic} now {v} the {adj} {ns}.
{name} counted {num} of us who {v} {topic} and share {anadj} {n}.
{name} returned form {num} with a question on {topic} and {anadj} {n}.
{name} in seat {num} knows why {topic} matter to every {adj} {n}.
{name} gave me {num} minutes for {topic}, and I shall {v} no {n} twice.
{name}, member {num}, proposes that {topic} should {v} our {adj} {ns}.
{name} posted card {num} last week: it praised {topic} and {anadj} {n}.
{name} owes you {num} answers on {topic}, and the first concerns {anadj} {n}.
`,
  bodies: `
You may {v} the {adj} {n} if you like, but the {ns} belong to {name}.
We {vd} {num} {ns} {adv}, and not one {n} was {adj}.
Please {v} the {n} {adv}, since {name} will {iv} on {day}.
Our {ns} from {place} {ivd} {adv} when we {vd} the {n}.
I have {vp} the {adj} {n} myself, with {num} {ns} as proof.
My neighbours in {place} {v} {ns} every {day}, {adv} and at length.
Would you {v} {anadj} {n} for us, and perhaps {v} the {ns}?
As {name} once {vd} {anadj} {n}, so must we {v} the {ns}.
Do not {v} the {ns} near {place}; they are {adj} and {iv} {adv}.
On {day} the {n} {vd} us all, and even {name} {ivd}.
Let every {n} {iv} {adv}, and let the {ns} be {vp}.
Between ourselves, {name} {vs} the {n} more {adv} than the {adj} {ns}.
Remember the {n} that {vd} {num} {ns} and still looked {adj}.
The committee {vd} {anadj} {n}; I would rather {v} the {ns}.
If the {ns} {iv}, send {anadj} {n} to {place} by {day}.
Enclosed are {num} {adj} {ns}, {vp} {adv} by my own {n}.
Whenever {name} {vs} {anadj} {n}, somebody in {place} {vs} the {ns}.
Friends, the {n} is {adj}, the {ns} are {vp}, and {place} {ivs}.
Tell {name} that {num} {ns} arrived {adv}, though the {n} was {adj}.
No {n} has ever {vp} us so {adv} as the {ns} of {place}.
`,
  closings: `
Write soon about {topic}, and {v} the {adj} {n} for me.
With {topic} in mind and {anadj} {n} in hand, I {iv} {adv}.
So I ask you to {v} {topic} {adv}, before the {ns} {iv}.
Until {day}, think of {topic}, of {place} and of {anadj} {n}.
For {topic} we shall {v} {num} {ns}, {adv} if need be.
Give my regards to {topic}, to {name} and to the {adj} {ns}.
May {topic} {v} you {adv}, and may no {n} {iv} in {place}.
That is all on {topic}; {name} will {v} the remaining {num} {ns}.
Stand by {topic}, stand by {name}, and {v} the {adj} {n}.
Yours among {topic}, {num} {ns} and one {adj} {n}.
In {place} we {v} {topic} on {day}; come and {v} the {n}.
Should {topic} ever {iv}, ask {name} to {v} {anadj} {n}.
`,
};
