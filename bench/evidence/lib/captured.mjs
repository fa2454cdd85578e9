/** Steps of a training that run without JavaScript where the optimizer allows it. */
import { CaptureError } from "@llmeff/native";
import { captureStep, scope, valueAndGrad } from "@llmeff/tensor";

/**
 * A training step as a function of its inputs, which returns the loss. It is captured as a whole, or if the optimizer refuses that (one that computes
 * with numbers of the host: those made of transforms) up to the gradients. `captured` says which: `"step"` or `"gradients"`.
 */
export function captureTraining(loss, params, optimizer, inputs) {
  const gradients = (x) => valueAndGrad((p) => loss(p, x), params);
  const whole = captureStep(
    (x) => {
      const { value, grads } = gradients(x);
      optimizer.step(grads);
      return value;
    },
    { inputs },
  );
  const part = captureStep(gradients, { inputs });
  let refused = false;
  const step = (x) => {
    if (!refused) {
      try {
        return whole(x);
      } catch (error) {
        if (!(error instanceof CaptureError)) throw error;
        refused = true;
      }
    }
    return scope(() => {
      const { value, grads } = part(x);
      optimizer.step(grads);
      return value;
    });
  };
  const dispose = () => {
    whole.dispose();
    part.dispose();
  };
  return Object.defineProperty(Object.assign(step, { dispose }), "captured", {
    get: () => (refused ? "gradients" : "step"),
  });
}

/** The loss alone as a function of the inputs. */
export function captureForward(loss, params, inputs) {
  return captureStep((x) => loss(params, x), { inputs });
}
