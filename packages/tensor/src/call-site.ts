/** An error whose stack tells where a call was made; the functions of this package come first in it. @internal */
export function callSite(message: string): Error {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 40;
  const site = new Error(message);
  Error.stackTraceLimit = limit;
  return site;
}
