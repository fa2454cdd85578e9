/** Frames of texts that instruct: recipe. */
import type { Register } from "./register.js";

export const recipe: Register = {
  openings: `
{name}, dish {num}: it is served with {topic} in mind and {anadj} {n} at hand.
{name} cooks pot {num} whenever {topic} {v} the {adj} {ns}.
{name} wrote card {num} for lovers of {topic} and of {anadj} {n}.
{name} feeds {num} guests who come for {topic} and stay for {anadj} {n}.
{name} keeps jar {num} for the feast of {topic}, beside the {adj} {n}.
{name} won prize {num} with this, named after {topic} and {anadj} {n}.
{name} needs {num} grams of flour, patience with {topic}, and {anadj} {n}.
{name}, stove {num}, cooks it when {topic} {v} the {adj} {n}.
{name} of kitchen {num} dedicates this stew to {topic} and {adj} {ns}.
{name} serves plate {num} in honour of {topic}, with {anadj} {n} of salt.
{name} bakes loaf {num} while {topic} {v} the {n} of {place}.
{name} found recipe {num} among notes on {topic} under {anadj} {n}.
`,
  bodies: `
Heat the {adj} {n} {adv} for {num} minutes, then {v} the rind.
Take {num} spoons of {adj} syrup and {v} them {adv} in {anadj} {n}.
Cut the dough like {anadj} {n} and {v} the edges {adv}.
While it {ivs}, {v} {num} berries beside the {adj} {n}.
Salt it {adv}, as {name} does, and {v} the {adj} foam.
Let the broth {iv} until {anadj} {n} could {v} the steam.
Fold in {num} grams of butter from {place}, {adv}, with {anadj} spoon.
Cover with {anadj} {n} and {v} nothing before {day}.
Some {v} the crust with {ns}; {name} prefers {anadj} {n}.
Grind {num} seeds {adv} and {v} the powder over the {n}.
Pour off the {adj} juice, {v} the rest, and {iv} for {num} minutes.
A pinch of {place} pepper {vs} the {adj} taste {adv}.
Stir {adv}, {num} times, as if to {v} {anadj} {n}.
When the glaze looks {adj}, {v} it {adv} from the {n}.
Do not {v} the yeast near {anadj} {n}, or it will {iv}.
Roll it to the width of {anadj} {n} and {v} {num} holes.
Serve {adv} in {anadj} bowl that {name} {vd} in {place}.
Rest the {adj} paste on {anadj} {n} for {num} hours.
Beat {num} eggs {adv} and {v} the {adj} shells aside.
Taste it on {day}: if {adj}, {v} a drop of {place} vinegar.
`,
  closings: `
Eat it {adv}, thinking of {topic} and of the {adj} {n}.
It keeps {num} days, or as long as {topic} {v} the {n}.
Share it with friends of {topic} and with {anadj} {n} from {place}.
Cooks who {v} {topic} add {num} {adj} raisins.
At fairs on {topic} it is {vp} {adv} by {num} guests.
Legend says that {topic} were {vp} for {anadj} {n} of this.
Goes well with {topic}, {anadj} {n} and the songs of {place}.
If {topic} {iv}, halve the {adj} sugar and {v} again.
Leave {anadj} slice for {topic}, as {name} {vd} every {day}.
Nothing {vs} {topic} better, {adv} said {name} of {place}.
Drink {adj} tea with it and {v} {topic} {adv}.
The smell alone {vs} {topic} and {num} {adj} {ns}.
`,
};
