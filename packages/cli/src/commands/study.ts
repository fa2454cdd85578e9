import type { Io } from "../io.js";
export async function studyCommand(_io: Io, _config: string, _options: object): Promise<void> {}
