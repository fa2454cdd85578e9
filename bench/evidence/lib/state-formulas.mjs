/** Numbers that the rules keep of tensors of these shapes, by the formulas of the papers. Vectors have a graft and momentum only. */
const sum = (shapes, of) => shapes.reduce((total, shape) => total + of(shape), 0);
const product = (shape) => shape.reduce((n, size) => n * size, 1);
const matrix = (ofMatrix) => (shape) => 2 * product(shape) + (shape.length === 2 ? ofMatrix(...shape) : 0);

export const adamwNumbers = (shapes) => sum(shapes, (shape) => 2 * product(shape));

/** `2(m² + n²) + 2mn` */
export const shampooNumbers = (shapes) =>
  sum(
    shapes,
    matrix((m, n) => 2 * (m * m + n * n)),
  );

/** `(m + n + 2)k + 2 + 2mn`, where an axis has no more directions than numbers. */
export const sketchyNumbers = (shapes, rank) =>
  sum(
    shapes,
    matrix((...axes) => sum(axes, (d) => (d + 1) * Math.min(rank, d) + 1)),
  );
