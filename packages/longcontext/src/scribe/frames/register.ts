/** A register: the frames that several formats share, one a line, for the opening, the body slots and the close. */
export interface Register {
  /** Begin with `{name}` and `{num}`, the signature by which two texts of one key differ at once, and name the topic. */
  readonly openings: string;
  readonly bodies: string;
  /** Name the topic again. */
  readonly closings: string;
}
