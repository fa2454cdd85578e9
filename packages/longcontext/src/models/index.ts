export { type Calibration, calibrate, calibratedTokens } from "./calibrate.js";
export {
  type EvalModel,
  type FailureFacts,
  type FailureKind,
  type Finish,
  type GenRequest,
  type GenResult,
  ModelError,
  type RateLimitState,
  type Usage,
} from "./eval-model.js";
export { flatPrompt } from "./flat-prompt.js";
export { type EndpointModel, type HttpModelOptions, httpModel, listModels } from "./http-model.js";
export type { Timeouts } from "./http-transport.js";
export { type NllOptions, type NllPositions, nllPosition } from "./nll-position.js";
export { echoModel, oracleModel, randomModel, scriptedModel, standIn } from "./stand-ins.js";
