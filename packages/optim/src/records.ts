/**
 * Records by names that users choose: "constructor" and "__proto__" are names like others, so what an object inherits must not be taken for an
 * entry, nor an entry be written to its prototype.
 */

/** The entry of a name, if the record itself has it. */
export function own<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

/** The entries of these names, as far as there are some. */
export function pick<T>(record: Readonly<Record<string, T>>, names: readonly string[]): Record<string, T> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = own(record, name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

/** The entries of all records. Unlike `Object.assign`, it writes to no prototype. */
export function merged<T>(records: readonly (Readonly<Record<string, T>> | undefined)[]): Record<string, T> {
  return Object.fromEntries(records.flatMap((record) => Object.entries(record ?? {})));
}

/** A record to be filled with entries of any names. */
export function emptyRecord<T>(): Record<string, T> {
  return Object.create(null);
}
