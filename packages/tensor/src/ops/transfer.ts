/** Tensors between devices. */
import { engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { type DeviceChoice, deviceNumber } from "../device.js";
import { refuseTransfer } from "../recording.js";
import { Tensor } from "../tensor.js";
import { mapTree, type TensorTree } from "../tree.js";

/** A copy on another device, row-major. @internal */
export function transferred(x: Tensor, device: number): Tensor {
  refuseTransfer("toDevice");
  const out = Tensor.allocate(x.dtype, x.shape, device);
  engine().transfer(x.handle, out.handle);
  return out;
}

const transferOp = defineOp<{ from: number; to: number }>({
  name: "toDevice",
  forward: (_context, [x], { to }) => transferred(x!, to),
  backward: ({ options: { from } }, dout) => [transferred(dout, from)],
});

function moved(x: Tensor, device: number): Tensor {
  return x.deviceNumber === device ? x : transferOp([x], { from: x.deviceNumber, to: device });
}

/**
 * A tensor, or all in arrays and plain objects of them, on a device: those that are there already as they are, of the others copies, whose
 * gradients go back to where the tensors came from. Copying is queued on both devices, as all work is.
 *
 * @throws {DeviceError} if there is no such device
 *
 * @example
 * const params = toDevice(model.init(0), "cuda");
 */
export function toDevice<T extends TensorTree>(tree: T, device: DeviceChoice): T {
  const to = deviceNumber("toDevice", device);
  return mapTree(tree, (x) => moved(x, to));
}
