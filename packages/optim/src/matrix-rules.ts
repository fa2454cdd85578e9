/** The optimizers of matrices and the online convex suite: what the package exports of them. */
export type { RidgeMode } from "./inverse-root.js";
export { Muon, type MuonOptions, type MuonState, type MuonTransformOptions, muon, scaleByMuon } from "./muon.js";
export type {
  MuonDirectionHyper,
  MuonHyper,
  MuonMethod,
  MuonOptimizerHyper,
  MuonProductDType,
  MuonScale,
} from "./muon-options.js";
export { type NewtonSchulzOptions, newtonSchulz } from "./newton-schulz.js";
export {
  OnlineConvex,
  type OnlineConvexAlgorithm,
  type OnlineConvexDirectionHyper,
  type OnlineConvexHyper,
  type OnlineConvexOptions,
  type OnlineConvexState,
  type OnlineConvexTransformOptions,
  onlineConvex,
} from "./online-convex.js";
export {
  PsgdKron,
  type PsgdKronOptions,
  type PsgdKronState,
  type PsgdKronTransformOptions,
  psgdKron,
  scaleByPsgdKron,
} from "./psgd-kron.js";
export type { PsgdKronDirectionHyper, PsgdKronHyper } from "./psgd-kron-options.js";
export {
  RfdSon,
  type RfdSonDirectionHyper,
  type RfdSonHyper,
  type RfdSonOptions,
  type RfdSonState,
  type RfdSonTransformOptions,
  rfdSon,
  scaleByRfdSon,
} from "./rfd-son.js";
export { Shampoo, type ShampooOptions, type ShampooTransformOptions, scaleByShampoo, shampoo } from "./shampoo.js";
export type { RootMethod, ShampooDirectionHyper, ShampooHyper } from "./shampoo-options.js";
export { Sketchy, type SketchyOptions, type SketchyTransformOptions, scaleBySketchy, sketchy } from "./sketchy.js";
export type { SketchyDirectionHyper, SketchyHyper } from "./sketchy-options.js";
export { Soap, type SoapOptions, type SoapState, type SoapTransformOptions, scaleBySoap, soap } from "./soap.js";
export type { SoapDirectionHyper, SoapHyper } from "./soap-options.js";
export type { ShampooGraft, TearfreeHyper } from "./tearfree-options.js";
