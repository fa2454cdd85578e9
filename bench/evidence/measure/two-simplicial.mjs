/** A model with or without 2-simplicial attention, trained on a generated task or on text. */
import { serve } from "../lib/trials.mjs";
import { trainTrial } from "../lib/two-simplicial-trial.mjs";

serve(trainTrial);
