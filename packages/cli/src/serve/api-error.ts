/** What a request is refused with, in the form of OpenAI's API. */

export interface ApiErrorOptions extends ErrorOptions {
  /** The field of the request that is at fault. */
  param?: string;
  /** A word for programs, such as `model_not_found`. */
  code?: string;
  headers?: Readonly<Record<string, string>>;
}

export class ApiError extends Error {
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    readonly status: number,
    message: string,
    options: ApiErrorOptions = {},
  ) {
    super(message, options);
    this.param = options.param ?? null;
    this.code = options.code ?? null;
    this.headers = options.headers ?? {};
  }

  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { message, param, code, status } = this;
    return { error: { message, type: typeOf(status), param, code } };
  }
}

/** A request that is wrong in one of its fields. */
export function badField(param: string, message: string, code?: string): ApiError {
  return new ApiError(400, message, { param, ...(code === undefined ? {} : { code }) });
}

function typeOf(status: number): string {
  if (status >= 500) return "server_error";
  if (status === 401) return "authentication_error";
  return status === 403 ? "permission_error" : "invalid_request_error";
}
