/**
 * The learning rate of an epoch (0-based): `linspace(0, peak, 5)` over the first five epochs, then `linspace(peak, 0, epochs - 3)` without its
 * two ends. The very first epoch has rate 0, as in the authors' code: it only fills the optimizer's statistics.
 */
export function epochRate(peak, epoch, epochs) {
  return epoch < 5 ? (peak * epoch) / 4 : peak * (1 - (epoch - 4) / (epochs - 4));
}
